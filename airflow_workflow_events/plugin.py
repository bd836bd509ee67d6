"""Airflow's plugin: registers the listener where ``[workflow_events] listener`` is on, and else nothing.

Every Airflow process imports this module, so that what is off must cost nothing.
"""

from __future__ import annotations

from typing import Any

from airflow_workflow_events.compat import AirflowPlugin, conf


def _listeners() -> list[object]:
    try:
        if not conf.getboolean("workflow_events", "listener", fallback=False):
            return []
    except Exception:  # noqa: BLE001 - neither true nor false: off, which is told at start
        return []
    from airflow_workflow_events import listeners

    return [listeners]


class WorkflowEventsPlugin(AirflowPlugin):
    """Registers the listener that publishes the events of every DAG."""

    name = "workflow_events"
    listeners: list[Any] = _listeners()
