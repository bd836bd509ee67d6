"""Waiting for an event in a real Airflow: how soon a task goes on, and what waiting costs the triggerer.

Airflow's processes are as they are by default, with the LocalExecutor and SQLite on this machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks import awaiting, triggerer
from benchmarks.awaiting import Scenario
from benchmarks.deployed import deployed

_SEED = 20_261_125

FULL = (
    Scenario("ours_in_triggerer", 20, events=20),
    Scenario("ours", 20, events=20),
    Scenario("ours_poking", 8, events=8, runs=3),
    Scenario("official", 20, events=10),
    Scenario("ours", 1, runs=5),
    Scenario("official", 1, runs=5),
    Scenario("ours", 1, runs=3, others=10),
    Scenario("official", 1, runs=3, others=10),
)
QUICK = (
    Scenario("ours_in_triggerer", 20, events=10),
    Scenario("ours", 20, events=5),
    Scenario("ours_poking", 8, events=8),
    Scenario("official", 20, events=3),
)
#: Contenders and numbers of sensors that wait in a triggerer.
FULL_CASES = (
    ("ours_in_triggerer", 1),
    ("ours_in_triggerer", 100),
    ("ours_in_triggerer", 1_000),
    ("official", 1),
    ("official", 100),
)
QUICK_CASES = (("ours_in_triggerer", 1), ("ours_in_triggerer", 100), ("official", 1))


def measure(
    servers: str, scenarios: tuple[Scenario, ...], cases: tuple[tuple[str, int], ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give ``"latency"`` with the seconds of each run of a scenario, then ``"triggerer"`` for each case."""
    chance = random.Random(_SEED)
    with deployed(servers) as airflow:
        for scenario in scenarios:
            for _ in range(scenario.runs):
                seconds = awaiting.measure(airflow, servers, scenario, chance)
                yield "latency", {**asdict(scenario), "seconds": seconds}
        for taken in triggerer.measure(airflow, servers, cases):
            yield "triggerer", taken
