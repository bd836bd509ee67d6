"""Why no event is lost: a table that accepts events, and a relay that delivers them. SQLAlchemy Core only."""

from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Destination, Drained, Relay
from airflow_workflow_events.outbox.store import Bounds, Outbox, OutboxEntry, ParkedEntry, Route, Totals

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
