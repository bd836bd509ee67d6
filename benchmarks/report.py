"""What is left of a run: a table on the terminal, and the figures as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
