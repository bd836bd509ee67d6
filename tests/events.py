"""Events for tests."""

from __future__ import annotations

from typing import Any

from airflow_workflow_events import EventSource, EventType, WorkflowEvent, WorkflowEventMetadata


def make_event(**fields: Any) -> WorkflowEvent:
    """A valid event; ``fields`` replace or add to its own."""
    defaults = {
        "event_type": EventType.WORKFLOW_COMPLETED,
        "source": EventSource.AIRFLOW,
        "workflow_id": "daily_sales",
        "workflow_run_id": "manual__1",
        "metadata": WorkflowEventMetadata(environment="test"),
    }
    return WorkflowEvent(**(defaults | fields))


def make_events(count: int, **fields: Any) -> list[WorkflowEvent]:
    """Valid events of one run, told apart by ``payload.data.number``."""
    return [make_event(payload={"data": {"number": number}}, **fields) for number in range(count)]
