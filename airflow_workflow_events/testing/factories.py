"""Events that production could have published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

from airflow_workflow_events.events.identity import lifecycle_event_id
from airflow_workflow_events.events.json_values import JsonValue
from airflow_workflow_events.events.model import (
    EventSource,
    EventType,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
)

_WORKFLOW_ID, _RUN_ID = "daily_sales", "manual__1"
_ENVIRONMENT = "test"
#: When runs start, so that the same call makes the same event: 2026-01-01, midnight in UTC.
RUN_STARTED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
#: How long runs and tasks take, in seconds.
DURATION_SECONDS = 60.0

# What payload.data of a lifecycle event consists of; null where production does not know it.
_LIFECYCLE_FIELDS = (
    *("state", "previous_state", "reason", "run_type", "clear_number", "logical_date"),
    *("data_interval_start", "data_interval_end", "partition_key", "queued_at", "started_at", "ended_at"),
    *("duration_seconds", "url", "triggered_by", "triggering_user_name", "task", "failed_tasks", "error"),
    "conf",
)
# State, the state before, and the reason that Airflow gives.
_STATES: dict[str, tuple[str, str, str | None]] = {
    EventType.WORKFLOW_STARTED: ("running", "queued", "started"),
    EventType.WORKFLOW_COMPLETED: ("success", "running", "success"),
    EventType.WORKFLOW_FAILED: ("failed", "running", "task_failure"),
    EventType.TASK_STARTED: ("running", "queued", None),
    EventType.TASK_COMPLETED: ("success", "running", None),
    EventType.TASK_FAILED: ("failed", "running", None),
    EventType.TASK_RETRYING: ("up_for_retry", "running", None),
    EventType.TASK_SKIPPED: ("skipped", "running", None),
}
_STARTS = (EventType.WORKFLOW_STARTED, EventType.TASK_STARTED)


def make_event(
    *, data: Mapping[str, Any] | None = None, environment: str = _ENVIRONMENT, **overrides: Any
) -> WorkflowEvent:
    """Return a valid event: ``workflow.completed`` of the run ``manual__1`` of ``daily_sales``, just now.

    Args:
        data: ``payload.data``. Default: empty.
        environment: ``metadata.environment``. Default ``"test"``.
        **overrides: fields of :class:`~airflow_workflow_events.WorkflowEvent`; they win over everything else.

    Raises:
        pydantic.ValidationError: a field is wrong.
    """
    fields: dict[str, Any] = {
        "event_type": EventType.WORKFLOW_COMPLETED,
        "source": EventSource.AIRFLOW,
        "workflow_id": _WORKFLOW_ID,
        "workflow_run_id": _RUN_ID,
        "payload": WorkflowEventPayload(data=dict(data or {})),
        "metadata": WorkflowEventMetadata(environment=environment),
    }
    return WorkflowEvent(**(fields | overrides))


def make_lifecycle_event(
    event_type: EventType | str = EventType.WORKFLOW_COMPLETED,
    *,
    workflow_id: str = _WORKFLOW_ID,
    workflow_run_id: str = _RUN_ID,
    clear_number: int = 0,
    run_started_at: dt.datetime = RUN_STARTED_AT,
    run_queued_at: dt.datetime | None = None,
    duration_seconds: float = DURATION_SECONDS,
    task_id: str | None = None,
    map_index: int = -1,
    try_number: int = 1,
    source_instance: str | None = None,
    environment: str = _ENVIRONMENT,
    data: Mapping[str, JsonValue] | None = None,
) -> WorkflowEvent:
    """Return an event as callbacks and the listener publish it, under the id that they give it.

    The same arguments make the same event, and those that production derives ids from make production's id.

    Args:
        event_type: what happened. Default ``workflow.completed``.
        workflow_id: the DAG id. Default ``"daily_sales"``.
        workflow_run_id: the run id. Default ``"manual__1"``.
        clear_number: how often the run was cleared. Default 0.
        run_started_at: the run's start, and its task's. Default: 2026-01-01, midnight in UTC.
        run_queued_at: when the run was queued; part of the id of ``workflow.started`` alone, which has the
            run's start in its place otherwise. Default ``None``: not known.
        duration_seconds: how long the run or the task took, in seconds. Default 60.
        task_id: the task, for an event of a task. Default ``None``; ``"load"`` for a ``task.`` type.
        map_index: of a mapped task. Default -1: not mapped.
        try_number: of the task. Default 1.
        source_instance: which deployment. Default ``None``.
        environment: ``metadata.environment``. Default ``"test"``.
        data: replaces or adds to ``payload.data``.

    Raises:
        pydantic.ValidationError: a field is wrong.
    """
    kind = str(event_type)
    if task_id is None and kind.startswith("task."):
        task_id = "load"
    started = kind in _STARTS
    by_queue = run_queued_at if kind == EventType.WORKFLOW_STARTED else None
    ended_at = None if started else run_started_at + dt.timedelta(seconds=duration_seconds)
    state, previous_state, reason = _STATES.get(kind, (None, None, None))
    subject: dict[str, Any] = {}
    if task_id is not None:
        subject = {"task_id": task_id, "map_index": map_index, "try_number": try_number}
    known = {
        "state": state,
        "previous_state": previous_state,
        "reason": reason,
        "run_type": "manual",
        "clear_number": clear_number,
        "queued_at": run_queued_at,
        "started_at": run_started_at,
        "ended_at": ended_at,
        "duration_seconds": None if started else duration_seconds,
        "error": _error(reason) if kind == EventType.WORKFLOW_FAILED else None,
        "task": {**subject, "max_tries": 0, "operator": None} if subject else None,
    }
    return WorkflowEvent(
        event_id=lifecycle_event_id(
            event_type=kind,
            workflow_id=workflow_id,
            workflow_run_id=workflow_run_id,
            source_instance=source_instance,
            clear_number=clear_number,
            run_started_at=run_started_at if by_queue is None else None,
            run_queued_at=by_queue,
            **subject,
        ),
        event_type=event_type,
        source=EventSource.AIRFLOW,
        workflow_id=workflow_id,
        workflow_run_id=workflow_run_id,
        timestamp=ended_at or run_started_at,
        payload=WorkflowEventPayload(data={**dict.fromkeys(_LIFECYCLE_FIELDS), **known, **(data or {})}),
        metadata=WorkflowEventMetadata(
            environment=environment, source_instance=source_instance, emitted_by="listener"
        ),
    )


def run_events(
    *,
    state: Literal["running", "success", "failed"] = "success",
    workflow_id: str = _WORKFLOW_ID,
    workflow_run_id: str = _RUN_ID,
    clear_number: int = 0,
    run_started_at: dt.datetime = RUN_STARTED_AT,
    duration_seconds: float = DURATION_SECONDS,
    source_instance: str | None = None,
    environment: str = _ENVIRONMENT,
) -> list[WorkflowEvent]:
    """Return the events of a run, in order: ``workflow.started``, and what became of it.

    Args:
        state: what became of it: ``"success"``, the default, ``"failed"``, or ``"running"`` for nothing yet.
        workflow_id: and the following: as in :func:`make_lifecycle_event`.
        workflow_run_id: see there.
        clear_number: see there.
        run_started_at: see there.
        duration_seconds: see there.
        source_instance: see there.
        environment: see there.
    """
    kinds = [EventType.WORKFLOW_STARTED]
    if state != "running":
        kinds.append(EventType.WORKFLOW_COMPLETED if state == "success" else EventType.WORKFLOW_FAILED)
    return [
        make_lifecycle_event(
            kind,
            workflow_id=workflow_id,
            workflow_run_id=workflow_run_id,
            clear_number=clear_number,
            run_started_at=run_started_at,
            duration_seconds=duration_seconds,
            source_instance=source_instance,
            environment=environment,
        )
        for kind in kinds
    ]


def _error(reason: str | None) -> dict[str, JsonValue]:
    return {"type": None, "message": reason, "stack_trace": None}
