"""A triggerer that is killed at an event: ``airflow_killed_triggerer before|after NUMBER``.

At that event, counted from 1, it and its runner are killed, before or after it is stored: the runner has
handed it over, and has not been told that it is stored.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from airflow.__main__ import main as airflow
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor


def main(moment: str, number: str) -> None:
    """Run Airflow's triggerer."""
    left = int(number)
    store = TriggerRunnerSupervisor.on_trigger_event

    def on_trigger_event(self: Any, trigger_id: int, event: Any) -> None:
        nonlocal left
        left -= 1
        if moment == "after":
            store(self, trigger_id, event)
        if not left:
            os.killpg(0, signal.SIGKILL)
        if moment == "before":
            store(self, trigger_id, event)

    supervisor: Any = TriggerRunnerSupervisor
    supervisor.on_trigger_event = on_trigger_event
    sys.argv[1:] = ["triggerer"]
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])
