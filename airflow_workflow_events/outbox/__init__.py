"""Why no event is lost: a table that accepts events, and a relay that delivers them. SQLAlchemy Core only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_workflow_events.lazy_names import lazy_names

if TYPE_CHECKING:
    from airflow_workflow_events.outbox.background import BackgroundRelay
    from airflow_workflow_events.outbox.database import OutboxDatabase
    from airflow_workflow_events.outbox.entries import Bounds, OutboxEntry, ParkedEntry, Route, Totals
    from airflow_workflow_events.outbox.port import Destination
    from airflow_workflow_events.outbox.relay import Drained, Relay
    from airflow_workflow_events.outbox.store import Outbox

__all__ = [
    "BackgroundRelay",
    "Bounds",
    "Destination",
    "Drained",
    "Outbox",
    "OutboxDatabase",
    "OutboxEntry",
    "ParkedEntry",
    "Relay",
    "Route",
    "Totals",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BackgroundRelay": f"{__name__}.background",
        "OutboxDatabase": f"{__name__}.database",
        **dict.fromkeys(("Bounds", "OutboxEntry", "ParkedEntry", "Route", "Totals"), f"{__name__}.entries"),
        "Destination": f"{__name__}.port",
        **dict.fromkeys(("Drained", "Relay"), f"{__name__}.relay"),
        "Outbox": f"{__name__}.store",
    },
)
