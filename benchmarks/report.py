"""What is left of a run: a table on the terminal, the figures as JSON, a bar chart for the documentation."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.figures import Figure

_PACKAGES = (
    "airflow-workflow-events",
    "pydantic",
    "confluent-kafka",
    "kafka-python",
    "aiokafka",
    "openlineage-python",
)
_STYLES = {"met": "green", "missed": "bold red", "not run": "yellow", "": ""}
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


def table(figures: Sequence[Figure]) -> Table:
    """Return the figures with their targets and verdicts."""
    made = Table("figure", title="Benchmarks: medians of interleaved rounds")
    made.add_column("value", justify="right")
    made.add_column("target", justify="right")
    made.add_column("verdict")
    group = None
    for figure in figures:
        if figure.group != group:
            made.add_section()
            made.add_row(f"[bold]{figure.group}")
            group = figure.group
        verdict = figure.verdict if not figure.note else f"not run: {figure.note}"
        style = _STYLES[figure.verdict]
        made.add_row(
            f"  {figure.name}", figure.text, figure.target, f"[{style}]{verdict}" if style else verdict
        )
    return made


def write_json(path: Path, measured: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Write the figures, and every measurement they were made from, in seconds."""
    document = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "figures": [
            {**asdict(figure), "target": figure.target, "verdict": figure.verdict} for figure in figures
        ],
        "measured": measured,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_chart(path: Path, measured: dict[str, Any]) -> None:
    """Draw the medians as bars, one panel for each thing that was measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

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


def write_outbox_chart(path: Path, measured: dict[str, Any]) -> None:
    """Draw how long listeners hold the scheduler's thread, and the memory of a relay that lives long."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
