"""Charts of what was measured, for the documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_LABELS = {
    "raw": "confluent-kafka\nproduce, finished bytes",
    "ours": "publish_events",
    "ours_building": "publish_events,\nbuilding the events",
    "openlineage": "OpenLineage,\nno flush",
    "openlineage_flush": "OpenLineage,\nas by default",
    "kafka_python": "kafka-python",
    "aiokafka": "aiokafka",
    "libraries_lazy": "import pydantic,\nconfluent_kafka",
    "libraries": "BaseModel,\nconfluent_kafka",
    "libraries_model": "BaseModel, a model,\nconfluent_kafka",
    "libraries_used": "BaseModel,\na Producer",
    "ours_used": "this package\nand a producer",
}
_OURS, _OTHERS = "#0b6e99", "#b8c4cc"
_SENSORS = {
    "ours_poking": "this sensor, in a worker",
    "ours_in_triggerer": "this sensor,\nended in the triggerer",
    "ours": "this sensor",
    "official": "AwaitMessageSensor",
}


def write(folder: Path, measured: dict[str, Any]) -> list[str]:
    """Draw the charts for which everything was measured, and return their names."""
    drawn = []
    for name, (draw, needed) in _CHARTS.items():
        if all(measured.get(part) for part in needed):
            draw(folder / name, measured)
            drawn.append(name)
    return drawn


def _write_chart(path: Path, measured: dict[str, Any]) -> None:
    """Draw the medians as bars, one panel for each thing that was measured."""
    cpu, latency = measured["cpu"], measured["latency"]
    broker = "real" if "real" in cpu else "embedded"
    where = "Kafka" if broker == "real" else "embedded broker"
    imports = {name: [one["wall"] for one in taken] for name, taken in measured["imports"].items()}
    shown = ("libraries", "libraries_used", "libraries_model", "ours_used")
    panels = (
        (f"CPU per event, microseconds\n({where})", cpu[broker], 1e6),
        (f"One confirmed publish, median, microseconds\n({where})", latency[broker], 1e6),
        ("Import, milliseconds\n(fresh interpreter)", {name: imports[name] for name in shown}, 1e3),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(14, 4), layout="constrained")
    for axis, (title, samples, scale) in zip(axes, panels, strict=True):
        names = list(samples)
        labels = [_LABELS[name] for name in names]
        if "confirmed" in title:
            labels = [label.replace("publish_events", "publish_event") for label in labels]
        heights = [median(samples[name]) * scale for name in names]
        colours = [_OURS if name.startswith("ours") else _OTHERS for name in names]
        bars = axis.barh(labels, heights, color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=3)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=11)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _write_outbox_chart(path: Path, measured: dict[str, Any]) -> None:
    """Draw how long listeners hold the scheduler's thread, and the memory of a relay that lives long."""
    figure, (holds, memory) = plt.subplots(1, 2, figsize=(14, 4), layout="constrained")
    hooks = measured["hooks"]
    for offset, (name, label, colour) in enumerate(
        (("official", "official plugin", _OTHERS), ("ours", "this package", _OURS))
    ):
        longest = [max(of[name]["seconds"]) * 1e3 for of in hooks.values()]
        places = [row + (offset - 0.5) * 0.4 for row in range(len(hooks))]
        bars = holds.barh(places, longest, height=0.38, color=colour, label=label)
        holds.bar_label(bars, labels=[f"{one:,.0f}" for one in longest], padding=3)
    holds.set_yticks(range(len(hooks)), [f"Kafka {condition}" for condition in hooks])
    holds.set_xscale("log")
    holds.set_title("Longest hold of the scheduler's thread, milliseconds", fontsize=11)
    holds.legend(loc="upper right")
    holds.invert_yaxis()
    holds.margins(x=0.2)
    samples = measured["outbox"]["memory"]
    memory.plot([number for number, _ in samples], [size / 1e6 for _, size in samples], color=_OURS)
    memory.set_ylim(bottom=0)
    memory.set_title("Resident memory of a process by events relayed, MB", fontsize=11)
    for axis in (holds, memory):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _write_waiting_chart(path: Path, measured: dict[str, Any]) -> None:
    """Draw how soon a waiting task goes on, and what waiting sensors cost the triggerer."""
    figure, (latency, memory, connections) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    _draw_latency(latency, measured["waiting"]["latency"])
    of: dict[str, list[dict[str, Any]]] = {}
    for one in measured["waiting"]["triggerer"]:
        of.setdefault(one["name"], []).append(one)
    for name, cases in of.items():
        colour = _OURS if name.startswith("ours") else _OTHERS
        label = "this sensor" if name.startswith("ours") else _SENSORS[name]
        numbers = [one["sensors"] for one in cases]
        memory.plot(numbers, [one["pss"] / 1e6 for one in cases], marker="o", color=colour, label=label)
        connections.plot(
            numbers, [one["connections"] for one in cases], marker="o", color=colour, label=label
        )
    memory.set_ylim(bottom=0)
    memory.set_title("Triggerer's memory, MB, by sensors that wait", fontsize=11)
    connections.set_yscale("log")
    connections.set_title("Its connections to Kafka, by sensors that wait", fontsize=11)
    for axis in (memory, connections):
        axis.set_xscale("log")
        axis.legend(loc="upper left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_latency(axis: Axes, scenarios: list[dict[str, Any]]) -> None:
    seconds: dict[str, list[float]] = {}
    for one in scenarios:
        many = f"{one['sensors']} wait{'s' if one['sensors'] == 1 else ''}"
        many += f", {one['others']} other events" if one["others"] else ""
        seconds.setdefault(f"{_SENSORS[one['name']]}\n({many})", []).extend(one["seconds"])
    colours = [_OTHERS if label.startswith(_SENSORS["official"]) else _OURS for label in seconds]
    bars = axis.barh(list(seconds), [median(taken) for taken in seconds.values()], color=colours)
    axis.bar_label(bars, fmt="%.2g", padding=3)
    axis.set_xscale("log")
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    axis.set_title("Event to end of task, median, seconds", fontsize=11)
    axis.margins(x=0.2)
    axis.spines[["top", "right"]].set_visible(False)


_CHARTS: dict[str, tuple[Callable[[Path, dict[str, Any]], None], tuple[str, ...]]] = {
    "benchmarks.png": (_write_chart, ("cpu", "latency", "imports")),
    "outbox.png": (_write_outbox_chart, ("hooks", "outbox")),
    "waiting.png": (_write_waiting_chart, ("waiting",)),
}
