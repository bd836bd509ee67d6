"""From measurements to figures with targets and verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.latency import percentiles

_EMBEDDED, _REAL = "embedded broker", "Kafka"


@dataclass(frozen=True)
class Figure:
    """One line of the result. Without a target it informs; without a value it was not measured."""

    group: str
    name: str
    value: float | None
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}{_suffix(self.unit)}"
        return "" if self.at_least is None else f">= {self.at_least:g}{_suffix(self.unit)}"

    @property
    def text(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.2f}x" if self.unit == "x" else f"{self.value:.4g}{_suffix(self.unit)}"

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``not run``, or nothing where there is no target."""
        if not self.target:
            return ""
        if self.value is None:
            return "not run"
        above = self.at_most is not None and self.value > self.at_most
        below = self.at_least is not None and self.value < self.at_least
        return "missed" if above or below else "met"


def _suffix(unit: str) -> str:
    return unit if unit == "x" or not unit else f" {unit}"


def figures(measured: dict[str, Any]) -> list[Figure]:
    """Return every figure of what was measured, in the order of the table."""
    missing = measured["no_real_kafka"]
    found: list[Figure] = []
    if "cpu" in measured:
        found += _cpu(_EMBEDDED, measured["cpu"]["embedded"])
        found += _cpu(_REAL, measured["cpu"].get("real", {}), missing)
        found += _latency(_EMBEDDED, measured["latency"]["embedded"])
        found += _latency(_REAL, measured["latency"].get("real", {}), missing)
    if "consuming" in measured:
        found += _consuming(measured["consuming"], missing)
    if "hooks" in measured:
        found += _hooks(measured["hooks"])
    if "outbox" in measured:
        found += _outbox(measured["outbox"])
    if "imports" in measured:
        found += _imports(measured["imports"])
    if "waiting" in measured:
        found += _sensors(measured["waiting"].get("latency", []), missing)
        found += _triggerer(measured["waiting"].get("triggerer", []), missing)
    return found


def _cpu(broker: str, measured: dict[str, list[float]], note: str = "") -> Iterator[Figure]:
    group = f"CPU per event, {broker}"
    by_name = {name: median(seconds) * 1e6 for name, seconds in measured.items()}

    def ratio(name: str, of: str, to: str, **target: float) -> Figure:
        value = by_name[of] / by_name[to] if by_name else None
        return Figure(group, name, value, note=note, **target)

    if by_name:
        yield Figure(group, "raw produce with a callback", by_name["raw"], "us")
        yield Figure(group, "publish_events", by_name["ours"], "us")
    yield ratio("publish_events / raw produce", "ours", "raw", at_most=3)
    yield ratio("with building the events / raw produce", "ours_building", "raw")
    if broker == _EMBEDDED:
        yield ratio("OpenLineage without flush / publish_events", "openlineage", "ours", at_least=3)
        yield ratio("OpenLineage, flushing / publish_events", "openlineage_flush", "ours")
        yield ratio("aiokafka / publish_events", "aiokafka", "ours")
    else:
        yield ratio("kafka-python / publish_events", "kafka_python", "ours", at_least=6)
        yield ratio("aiokafka / publish_events", "aiokafka", "ours")
        yield ratio("OpenLineage without flush / publish_events", "openlineage", "ours")


def _latency(broker: str, measured: dict[str, list[float]], note: str = "") -> Iterator[Figure]:
    group = f"One confirmed publish, {broker}"
    if not measured:
        yield Figure(group, "publish_event / raw, p50", None, at_most=1.3, note=note)
        return
    of = {name: percentiles(seconds) for name, seconds in measured.items()}
    for percentile in ("p50", "p95", "p99"):
        yield Figure(group, f"publish_event, {percentile}", of["ours"][percentile] * 1e6, "us")
    yield Figure(group, "publish_event / raw, p50", of["ours"]["p50"] / of["raw"]["p50"], at_most=1.3)
    for percentile in ("p95", "p99"):
        yield Figure(
            group, f"publish_event / raw, {percentile}", of["ours"][percentile] / of["raw"][percentile]
        )
    if "kafka_python" in of:
        yield Figure(
            group,
            "kafka-python send().get() / publish_event, p50",
            of["kafka_python"]["p50"] / of["ours"]["p50"],
        )


def _consuming(measured: dict[str, list[float]], note: str) -> Iterator[Figure]:
    group = "Consuming typed events, one core, Kafka"
    taken = {name: median(seconds) for name, seconds in measured.items()}

    def ratio(name: str, of: str, to: str, **target: float) -> Figure:
        return Figure(group, name, taken[of] / taken[to] if taken else None, note=note, **target)

    rate = 1 / taken["ours"] if taken else None
    yield Figure(group, "WorkflowEventConsumer", rate, "events/s", at_least=80_000, note=note)
    yield ratio("kafka-python and pydantic / it, seconds per event", "kafka_python", "ours", at_least=4)
    yield ratio("confluent-kafka and pydantic / it", "confluent_pydantic", "ours")
    yield ratio("it / confluent-kafka, values not decoded", "ours", "raw")


_CONDITION = {
    "up": "Kafka up",
    "slow": "Kafka slow, 5 s an answer",
    "down": "Kafka down",
    "silent": "Kafka silent",
}


def _hooks(measured: dict[str, dict[str, Any]]) -> Iterator[Figure]:
    for condition, of in measured.items():
        group = f"On the scheduler's thread, {_CONDITION[condition]}"
        ours, official = of["ours"], of["official"]
        taken = percentiles(ours["seconds"])
        yield Figure(group, "listener, p50", taken["p50"] * 1e3, "ms", at_most=0.3)
        yield Figure(group, "listener, p99", taken["p99"] * 1e3, "ms", at_most=5)
        yield Figure(group, "listener, longest", max(ours["seconds"]) * 1e3, "ms")
        yield Figure(group, "official plugin, longest", max(official["seconds"]) * 1e3, "ms")
        yield Figure(
            group,
            "listener: events delivered or kept",
            100 * ours["accounted"] / ours["events"],
            "%",
            at_least=100,
        )
        yield Figure(
            group, "official plugin: the same", 100 * official["accounted"] / official["events"], "%"
        )


def _outbox(measured: dict[str, Any]) -> Iterator[Figure]:
    group = "Outbox, SQLite"
    empty, full = (percentiles(measured["appends"][name]) for name in ("empty", "backlog"))
    drain, memory = measured["drain"], measured["memory"]
    yield Figure(group, "append, p50", empty["p50"] * 1e6, "us")
    yield Figure(group, "append, p99", empty["p99"] * 1e6, "us")
    behind = f"append behind a backlog of {measured['backlog']:,} / to an empty one"
    yield Figure(group, f"{behind}, p50", full["p50"] / empty["p50"], at_most=1.2)
    yield Figure(group, f"{behind}, p99", full["p99"] / empty["p99"])
    yield Figure(
        group,
        f"relay, backlog of {drain['events']:,}",
        drain["events"] / drain["seconds"],
        "events/s",
        at_least=15_000,
    )
    # What a process needs once it has done everything once, against what it needs at the end.
    settled = next(size for number, size in memory if number >= drain["events"] // 5)
    yield Figure(group, "resident memory at the end", memory[-1][1] / 1e6, "MB")
    yield Figure(group, "the same / after a fifth of the events", memory[-1][1] / settled, at_most=1.05)


def _imports(measured: dict[str, list[dict[str, Any]]]) -> Iterator[Figure]:
    group = "Import"
    wall = {name: median(one["wall"] for one in taken) * 1e3 for name, taken in measured.items()}
    airflow = {module for taken in measured.values() for one in taken for module in one["airflow"]}

    def ratio(name: str, of: str, to: str, **target: float) -> Figure:
        return Figure(group, name, wall[of] / wall[to], **target)

    yield Figure(group, "WorkflowEvent and a producer, used", wall["ours_used"], "ms")
    yield ratio("used / BaseModel and Producer, used", "ours_used", "libraries_used", at_most=1.5)
    yield ratio("import / BaseModel and confluent_kafka", "ours", "libraries")
    yield ratio("import / the same with one model defined", "ours", "libraries_model")
    yield ratio("import / pydantic, which is lazy, and confluent_kafka", "ours", "libraries_lazy")
    yield Figure(group, "Airflow modules loaded", len(airflow), "", at_most=0)


_SENSOR = {
    "ours_poking": "in a worker, mode poke",
    "ours_in_triggerer": "ended in the triggerer",
    "ours": "deferred, as by default",
    "official": "AwaitMessageSensor",
}
# The best documented way of each kind: where a worker waits, and where the triggerer does.
_WITHIN_A_SECOND = ("ours_poking", "ours_in_triggerer")


def _sensors(measured: list[dict[str, Any]], note: str) -> Iterator[Figure]:
    group = "Sensor, event to end of task, Kafka"
    if not measured:
        for name in _WITHIN_A_SECOND:
            yield Figure(group, f"{_SENSOR[name]}, p95", None, "s", at_most=1, note=note)
        return
    taken: dict[tuple[str, int, int], list[float]] = {}
    for one in measured:
        taken.setdefault((one["name"], one["sensors"], one["others"]), []).extend(one["seconds"])
    for (name, count, others), seconds in taken.items():
        behind = f", behind {others} other events" if others else ""
        kind = f"{_SENSOR[name]}, {count} wait{'' if count > 1 else 's'}{behind}"
        target = {"at_most": 1.0} if name in _WITHIN_A_SECOND else {}
        yield Figure(group, f"{kind}, p50", percentiles(seconds)["p50"], "s")
        yield Figure(group, f"{kind}, p95", percentiles(seconds)["p95"], "s", **target)
    for (name, count, others), seconds in taken.items():
        for ours in ("ours_in_triggerer", "ours"):
            if name == "official" and (ours, count, others) in taken:
                behind = f", behind {others}" if others else ""
                value = median(seconds) / median(taken[ours, count, others])
                yield Figure(group, f"AwaitMessageSensor / {_SENSOR[ours]}, {count}{behind}, p50", value)


def _triggerer(measured: list[dict[str, Any]], note: str) -> Iterator[Figure]:
    group = "Triggerer with waiting sensors, Kafka"
    if not measured:
        yield Figure(group, "connections, with many / with 1", None, at_most=1, note=note)
        return
    by_case = {(one["name"], one["sensors"]): one for one in measured}
    for (name, count), one in by_case.items():
        kind = f"{count:,} {'of this' if name != 'official' else 'AwaitMessageSensor'}"
        yield Figure(group, f"{kind}, memory (PSS)", one["pss"] / 1e6, "MB")
        yield Figure(group, f"{kind}, connections to Kafka", one["connections"], "")
        yield Figure(group, f"{kind}, threads", one["threads"], "")
    for name in dict.fromkeys(name for name, _ in by_case):
        most = max(count for other, count in by_case if other == name)
        few, many = by_case[name, 1], by_case[name, most]
        whose = "this" if name != "official" else "AwaitMessageSensor"
        target = {"at_most": 1.0} if name != "official" else {}
        if most > 1:
            yield Figure(
                group,
                f"{whose}: connections with {most:,} / with 1",
                many["connections"] / few["connections"],
                **target,
            )
            each = (many["pss"] - few["pss"]) / (most - 1)
            yield Figure(group, f"{whose}: memory for each further sensor", each / 1e3, "kB")
        if many["ended_seconds"] is not None:
            yield Figure(group, f"{whose}: {most:,} events to ended tasks", many["ended_seconds"], "s")
