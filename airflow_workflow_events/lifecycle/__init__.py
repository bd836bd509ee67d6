"""Airflow context, run or task -> workflow event. Translation only: nothing here publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_workflow_events.lazy_names import lazy_names

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LIFECYCLE_FIELDS": f"{__name__}.assembly",
        "run_identity": f"{__name__}.reading",
        **dict.fromkeys(
            ("Outcome", "event_type_of", "lifecycle_event", "published_event"), f"{__name__}.translate"
        ),
    },
)
