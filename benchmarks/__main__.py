"""Measure, and say what came of it: ``python -m benchmarks [--quick] [--only PART...] [--check]``."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    backlog,
    broker,
    charts,
    consuming,
    imports,
    latency,
    listening,
    producing,
    report,
    waiting,
)
from benchmarks.awaiting import Scenario
from benchmarks.figures import figures


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    events: int
    event_rounds: int
    publishes: int
    publish_rounds: int
    import_rounds: int
    hooks: int
    backlog: int
    append_rounds: int
    replayed: int
    consumed: int
    consume_rounds: int
    scenarios: tuple[Scenario, ...]
    triggerers: tuple[tuple[str, int], ...]


PARTS = ("producing", "consuming", "listening", "outbox", "imports", "waiting")
_ON_KAFKA = {"producing", "consuming", "waiting"}

_FULL = Effort(
    events=20_000,
    event_rounds=7,
    publishes=2_000,
    publish_rounds=5,
    import_rounds=15,
    hooks=2_000,
    backlog=1_000_000,
    append_rounds=3,
    replayed=100_000,
    consumed=200_000,
    consume_rounds=5,
    scenarios=waiting.FULL,
    triggerers=waiting.FULL_CASES,
)
_QUICK = Effort(
    events=5_000,
    event_rounds=3,
    publishes=500,
    publish_rounds=1,
    import_rounds=5,
    hooks=400,
    backlog=100_000,
    append_rounds=1,
    replayed=20_000,
    consumed=50_000,
    consume_rounds=2,
    scenarios=waiting.QUICK,
    triggerers=waiting.QUICK_CASES,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds; rougher figures")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--output", type=Path, default=Path(".work/bench"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    options = parser.parse_args()
    console = Console()
    measured = measure(_QUICK if options.quick else _FULL, frozenset(options.only), console)
    found = figures(measured)
    options.output.mkdir(parents=True, exist_ok=True)
    report.write_json(options.output / "benchmarks.json", measured, found)
    written = ["benchmarks.json", *charts.write(options.output, measured)]
    console.print(report.table(found))
    console.print(f"Written to {options.output}: {', '.join(written)}")
    missed = any(figure.verdict == "missed" for figure in found)
    return 1 if missed and options.check else 0


def measure(effort: Effort, parts: frozenset[str], console: Console) -> dict[str, Any]:
    """Return every measurement of these parts, in seconds; what was not measured is not there."""
    measured: dict[str, Any] = {"no_real_kafka": ""}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        if "imports" in parts:
            measured["imports"] = _imports(effort, progress)
        if "listening" in parts:
            measured["hooks"] = _hooks(effort, progress)
        if "outbox" in parts:
            measured["outbox"] = _outbox(effort, progress)
        if "producing" in parts:
            with broker.embedded() as servers:
                measured["cpu"] = {"embedded": _cpu(servers, producing.EMBEDDED, effort, progress)}
                measured["latency"] = {"embedded": _latency(servers, latency.EMBEDDED, effort, progress)}
        measured.update({part: {} for part in ("consuming", "waiting") if part in parts})
        if parts & _ON_KAFKA:
            try:
                with broker.real() as servers:
                    _on_kafka(servers, effort, parts, progress, measured)
            except broker.NoBrokerError as error:
                measured["no_real_kafka"] = str(error)
    return measured


def _on_kafka(
    servers: str, effort: Effort, parts: frozenset[str], progress: Progress, measured: dict[str, Any]
) -> None:
    if "producing" in parts:
        measured["cpu"]["real"] = _cpu(servers, producing.REAL, effort, progress)
        measured["latency"]["real"] = _latency(servers, latency.REAL, effort, progress)
    if "consuming" in parts:
        measured["consuming"] = _consuming(servers, effort, progress)
    if "waiting" in parts:
        measured["waiting"] = _waiting(servers, effort, progress)


def _imports(effort: Effort, progress: Progress) -> dict[str, list[dict[str, Any]]]:
    advance = _task(progress, "importing", effort.import_rounds * len(imports.CONTENDERS))
    taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, one in imports.measure(effort.import_rounds):
        taken[name].append(one)
        advance()
    return taken


def _cpu(
    servers: str, contenders: tuple[str, ...], effort: Effort, progress: Progress
) -> dict[str, list[float]]:
    advance = _task(progress, f"CPU per event, {servers}", effort.event_rounds * len(contenders))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for name, seconds in producing.measure(servers, contenders, effort.events, effort.event_rounds):
        taken[name].append(seconds)
        advance()
    return taken


def _latency(
    servers: str, contenders: tuple[str, ...], effort: Effort, progress: Progress
) -> dict[str, list[float]]:
    advance = _task(progress, f"confirmed publishes, {servers}", effort.publish_rounds * len(contenders))
    taken: dict[str, list[float]] = defaultdict(list)
    for seconds_of in latency.measure(servers, contenders, effort.publishes, effort.publish_rounds):
        for name, seconds in seconds_of.items():
            taken[name].extend(round(one, 7) for one in seconds)
        advance()
    return taken


def _consuming(servers: str, effort: Effort, progress: Progress) -> dict[str, list[float]]:
    advance = _task(progress, "consuming", effort.consume_rounds * len(consuming.CONTENDERS))
    taken: dict[str, list[float]] = defaultdict(list)
    consuming.fill(servers, effort.consumed)
    for name, seconds in consuming.measure(servers, effort.consumed, effort.consume_rounds):
        taken[name].append(seconds)
        advance()
    return taken


def _waiting(servers: str, effort: Effort, progress: Progress) -> dict[str, list[dict[str, Any]]]:
    runs = sum(scenario.runs for scenario in effort.scenarios)
    advance = _task(progress, "sensors", runs + len(effort.triggerers))
    taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for what, one in waiting.measure(servers, effort.scenarios, effort.triggerers):
        taken[what].append(one)
        advance()
    return taken


def _hooks(effort: Effort, progress: Progress) -> dict[str, dict[str, Any]]:
    advance = _task(progress, "listeners", len(listening.CONDITIONS) * len(listening.CONTENDERS))
    brokers = {
        "up": broker.embedded,
        "slow": partial(broker.embedded, listening.SLOW_MS),
        "down": broker.down,
        "silent": broker.silent,
    }
    taken: dict[str, dict[str, Any]] = {}
    for condition in listening.CONDITIONS:
        with brokers[condition]() as servers:
            for name, one in listening.measure(servers, condition, effort.hooks):
                taken.setdefault(condition, {})[name] = one
                advance()
    return taken


def _outbox(effort: Effort, progress: Progress) -> dict[str, Any]:
    advance = _task(progress, "outbox", 2 * effort.append_rounds + 2)
    appends: dict[str, list[float]] = {"empty": [], "backlog": []}
    for _ in range(effort.append_rounds):
        for name, rows in (("empty", 0), ("backlog", effort.backlog)):
            appends[name] += backlog.append(rows, effort.publishes)
            advance()
    with broker.embedded() as servers:
        drain = backlog.drain(servers, effort.replayed)
        advance()
        memory = backlog.memory(servers, effort.replayed)
        advance()
    return {"appends": appends, "backlog": effort.backlog, "drain": drain, "memory": memory}


def _task(progress: Progress, description: str, total: int) -> Callable[[], None]:
    task = progress.add_task(description, total=total)
    steps = count(1)

    def advance() -> None:
        progress.advance(task)
        if not progress.console.is_terminal:  # where no bar moves, as in a log
            progress.console.print(f"{description} {next(steps)}/{total}")

    return advance


if __name__ == "__main__":
    raise SystemExit(main())
