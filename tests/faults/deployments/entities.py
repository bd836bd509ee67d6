"""What an event is about, and which transitions of Airflow's database have an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from tests.faults.deployments.sources import Transition

RUN_TYPES = {"running": "workflow.started", "success": "workflow.completed", "failed": "workflow.failed"}
TASK_TYPES = {
    "running": "task.started",
    "success": "task.completed",
    "failed": "task.failed",
    "up_for_retry": "task.retrying",
    "skipped": "task.skipped",
}
WITHOUT_A_TYPE = {"upstream_failed", "removed", "restarting"}


class Key(NamedTuple):
    """What an event is about."""

    event_type: str
    dag_id: str
    run_id: str
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """A transition that has an event type."""

    key: Key
    transition: Transition


class Event(NamedTuple):
    """An event of the topic, repetitions left out."""

    key: Key
    event_id: str
    data: dict[str, Any]
    emitted_at: datetime | None


def event_of(message: dict[str, Any]) -> Event:
    """The event that a message is."""
    data = message["payload"]["data"]
    key = Key(message["event_type"], message["workflow_id"], message["workflow_run_id"])
    if task := data.get("task"):
        key = Key(*key[:3], task["task_id"], task["map_index"], task["try_number"])
    return Event(key, message["event_id"], data, parsed(message.get("metadata", {}).get("emitted_at")))


def parsed(text: str | None) -> datetime | None:
    """A time of an event."""
    return None if text is None else datetime.fromisoformat(text)
