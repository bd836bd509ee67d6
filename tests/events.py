"""Events for tests."""

from __future__ import annotations

from typing import Any

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.testing import make_event

__all__ = ["make_event", "make_events"]


def make_events(count: int, **fields: Any) -> list[WorkflowEvent]:
    """Valid events of one run, told apart by ``payload.data.number``."""
    return [make_event(data={"number": number}, **fields) for number in range(count)]
