"""Airflow context, run or task -> workflow event. Translation only: nothing here publishes."""

from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from airflow_workflow_events.lifecycle.reading import run_identity
from airflow_workflow_events.lifecycle.translate import (
    Outcome,
    event_type_of,
    lifecycle_event,
    published_event,
)

__all__ = [
    "LIFECYCLE_FIELDS",
    "Outcome",
    "event_type_of",
    "lifecycle_event",
    "published_event",
    "run_identity",
]
