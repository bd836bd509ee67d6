"""What a triggerer takes with few and many sensors waiting in it, each time a triggerer of its own.

A thousand official sensors are not measured. Their triggers poll one after the other, a second each, in the
one thread that asgiref has for all; the triggerer takes on 50 at a time, and each 50 wait for a turn of all
before them: it would be hours until the last has its consumer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from airflow_workflow_events import WorkflowEventProducer
from benchmarks import sensors
from benchmarks.awaiting import await_groups
from benchmarks.children import MeasurementError
from benchmarks.deployed import Deployed, awaited
from benchmarks.footprint import Footprint, footprint
from tests.waiting import await_condition

_PART = "measured-triggerer"
_RUNNING_SECONDS = 300.0
_LOOK_SECONDS = 3.0
_SETTLED = 0.01
_SETTLED_SECONDS = 120.0
_ENDED_SECONDS = 300.0


def measure(airflow: Deployed, servers: str, cases: tuple[tuple[str, int], ...]) -> Iterator[dict[str, Any]]:
    """Give the footprint of a triggerer in which so many sensors of a contender wait, for each case.

    The largest number of our sensors is given its events in the end, as proof that all of them waited;
    ``ended_seconds`` is what it took until all had ended.
    """
    for part in ("scheduler", "triggerer"):  # nobody else is to run the sensors, or their triggers
        airflow.end_part(part)
    proved = max(count for name, count in cases if name != "official")
    for name, count in cases:
        run_id = airflow.begin(sensors.dag_id(name, count))
        _as_program(airflow, "defer", name, count, run_id)
        airflow.start_part(_PART, "airflow", "triggerer", "--skip-serve-logs")
        try:
            taken, seconds = _waiting(airflow, servers, name, count, run_id)
            ended = None
            if name != "official" and count == proved:
                ended = _end(airflow, servers, name, count, run_id)
        finally:
            airflow.end_part(_PART)
        _as_program(airflow, "withdraw", name, count, run_id)
        yield {
            "name": name,
            "sensors": count,
            **asdict(taken),
            "running_seconds": seconds,
            "ended_seconds": ended,
        }


def _waiting(airflow: Deployed, servers: str, name: str, count: int, run_id: str) -> tuple[Footprint, float]:
    """Return what the triggerer takes once all wait, and how long it took until they did."""
    dag_id, pid = sensors.dag_id(name, count), airflow.pid(_PART)
    port = int(servers.split(",", maxsplit=1)[0].rpartition(":")[2])
    began = time.monotonic()
    airflow.await_triggers(dag_id, run_id, count, _RUNNING_SECONDS)
    if name == "official":
        await_groups(airflow, servers, sensors.topic_of(dag_id), count)
    else:
        airflow.await_condition(
            lambda: footprint(pid, port).connections > 0, _RUNNING_SECONDS, "the triggerer's consumer"
        )
    seconds = time.monotonic() - began
    return _settled(pid, port), seconds


def _settled(pid: int, port: int) -> Footprint:
    """Look until two looks, some seconds apart, differ by less than a hundredth."""
    looks = [footprint(pid, port)]

    def is_settled() -> bool:
        time.sleep(_LOOK_SECONDS)
        looks.append(footprint(pid, port))
        before, now = looks[-2:]
        return abs(now.pss - before.pss) < _SETTLED * before.pss and now.connections == before.connections

    await_condition(is_settled, timeout_seconds=_SETTLED_SECONDS, what="the triggerer's memory to settle")
    return looks[-1]


def _end(airflow: Deployed, servers: str, name: str, count: int, run_id: str) -> float:
    """Publish what all wait for, wait until all have ended well and return the seconds."""
    dag_id = sensors.dag_id(name, count)
    with WorkflowEventProducer(servers, topic=sensors.topic_of(dag_id)) as producer:
        began = time.monotonic()
        reports = producer.publish_events([awaited(number, run_id) for number in range(count)])
        if not all(report.delivered for report in reports):
            raise MeasurementError(f"events for {dag_id} were not delivered")
        airflow.await_states(dag_id, run_id, {"success": count}, _ENDED_SECONDS)
        return time.monotonic() - began


def _as_program(airflow: Deployed, what: str, name: str, count: int, run_id: str) -> None:
    airflow.start_part(what, "benchmarks.deferring", what, name, str(count), run_id)
    if airflow.await_end(what):
        raise MeasurementError(f"{what} {name} {count} failed:\n{airflow.log(what)[-3000:]}")
