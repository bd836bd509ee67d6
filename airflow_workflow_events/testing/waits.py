"""What sensors and watchers of a process wait through, given up; production closes it when nobody waits."""

# ruff: noqa: SLF001 - only tests have a use for this

from __future__ import annotations

import sys
import threading

_CLOSE_SECONDS = 10.0


def close_what_waits() -> None:
    """Close what waits in this process, while there is still a broker to say good-bye to.

    In the next test a connection of the same name may lead elsewhere.
    """
    # Where nobody has waited nothing is loaded, and loading it takes a while.
    if (waiting := sys.modules.get("airflow_workflow_events.waiting")) is not None:
        hubs = list(waiting._hubs.values())
        waiting._hubs.clear()
        for hub in hubs:
            hub.close()
    if (watching := sys.modules.get("airflow_workflow_events.watching")) is not None:
        keepers = list(watching._keepers.values())
        watching._keepers.clear()
        for keeper in keepers:
            for group_id in list(keeper._offsets._clients):
                keeper._offsets.forget(group_id)
            keeper._thread.shutdown()
    for thread in threading.enumerate():
        if thread.name == "workflow-events-closing":
            thread.join(_CLOSE_SECONDS)
