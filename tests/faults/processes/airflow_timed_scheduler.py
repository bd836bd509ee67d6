"""A scheduler that writes down how long the listener kept it: ``airflow_timed_scheduler FILE``.

Each line is a hook's name and seconds, as the listener itself tells Airflow's Stats.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.__main__ import main as airflow

from airflow_workflow_events import metrics
from airflow_workflow_events.relaying import METRICS


def main(file: str) -> None:
    """Run Airflow's scheduler."""
    timings = Path(file).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 - as long as the process

    def timing(name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        if name == metrics.HOOK_TIME:
            timings.write(f"{(tags or {})['hook']} {seconds}\n")

    instance: Any = METRICS
    instance.timing = timing
    sys.argv[1:] = ["scheduler"]
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])
