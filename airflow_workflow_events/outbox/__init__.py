"""Why no event is lost: a table that accepts events, and a relay that delivers them. SQLAlchemy Core only."""

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
