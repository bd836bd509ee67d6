"""From what Airflow hands to callbacks, notifiers and operators to a workflow event. Translation only.

Airflow gives many shapes for the same thing: a full context in a task, a plain dict with a run in a DAG
callback, ``{dag, run_id, reason}`` and nothing else when a run had no task to speak of, a dict of strings in
a deadline alert. Everything is read defensively, nothing is looked up over a network but the failed tasks of
a run, and what is unknown is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.model import EventType, WorkflowEvent
from airflow_workflow_events.lifecycle.assembly import Emission
from airflow_workflow_events.lifecycle.failures import (
    QUESTION_SECONDS,
    allowed_conf,
    exception_error,
    failed_tasks,
    run_error,
)
from airflow_workflow_events.lifecycle.links import ui_url
from airflow_workflow_events.lifecycle.reading import (
    RunIdentity,
    enum_value,
    get,
    is_about_a_task,
    now,
    number_of,
    run_identity,
    seconds_between,
    text_or_none,
    time_of,
)
from airflow_workflow_events.lifecycle.rows import MARKED_AT
from airflow_workflow_events.settings import Settings

Outcome = Literal["success", "failure"]
"""What a callback stands for, where it says so itself."""


def lifecycle_event(
    context: Mapping[str, Any],
    event_type: str | None,
    settings: Settings,
    *,
    outcome: Outcome | None,
    environment: str,
    emitted_by: str,
    data: Mapping[str, Any] | None = None,
    patience_seconds: float = QUESTION_SECONDS,
) -> WorkflowEvent:
    """Return the event of what a context is about: a run, a task or a deadline.

    Args:
        context: what Airflow gave a callback, a notifier or a deadline alert.
        event_type: what to call it; ``None`` for what the context says happened.
        settings: the ``[workflow_events]`` options.
        outcome: what the callback stands for, where it says so itself.
        environment: for ``metadata.environment``.
        emitted_by: ``callback`` or ``notifier``.
        data: added to ``payload.data``. Default: nothing.
        patience_seconds: how long to wait for Airflow's answer which tasks failed, in seconds. Default 2.

    Raises:
        ConfigurationError: neither the context nor the callback says what happened.
        pydantic.ValidationError: ``data`` has a value that JSON cannot carry; the message names its path.
    """
    kind = event_type or event_type_of(context, outcome)
    emission = Emission(context, settings, environment, emitted_by, data)
    if is_about_a_task(context):
        return _task_event(kind, emission)
    return _run_event(kind, emission, patience_seconds)


def event_type_of(context: Mapping[str, Any], outcome: Outcome | None) -> EventType:
    """Return what happened, by a callback's context.

    Raises:
        ConfigurationError: neither the context nor ``outcome`` says it.
    """
    if "deadline" in context:
        return EventType.WORKFLOW_DEADLINE_MISSED
    if is_about_a_task(context):
        known = _TASK_TYPE_OF.get(enum_value(get(context.get("ti"), "state")) or "")
        if outcome == "success":
            return EventType.TASK_COMPLETED
        if outcome == "failure":
            return EventType.TASK_RETRYING if known is EventType.TASK_RETRYING else EventType.TASK_FAILED
        if known is not None:
            return known
    else:
        state = enum_value(get(context.get("dag_run"), "state"))
        # The minimal context has no run; Airflow gives a success the reason "success" and no failure one.
        if outcome == "success" or (outcome is None and "success" in (state, context.get("reason"))):
            return EventType.WORKFLOW_COMPLETED
        if outcome == "failure" or state == "failed" or context.get("reason") is not None:
            return EventType.WORKFLOW_FAILED
    raise ConfigurationError("cannot tell from the context what happened: give the callback an event_type")


def _run_event(event_type: str, emission: Emission, patience_seconds: float) -> WorkflowEvent:
    context = emission.context
    identity = run_identity(context)
    run = context.get("dag_run")
    failed = event_type == EventType.WORKFLOW_FAILED
    started = event_type == EventType.WORKFLOW_STARTED
    ended_at = None if started else time_of(get(run, "end_date"))  # a run that was cleared still has its last
    failures = failed_tasks(context, identity, patience_seconds) if failed else None
    reason, marked_at = text_or_none(context.get("reason")), context.get(MARKED_AT)
    facts = _run_facts(emission, identity) | {
        "state": enum_value(get(run, "state")) or _STATE_OF.get(event_type),
        "previous_state": _previous_state(event_type, marked_at),
        "reason": reason,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(identity.started_at, ended_at),
        "url": ui_url(emission.settings.base_url, identity),
        "failed_tasks": failures,
        "error": run_error(reason, failures) if failed else None,
    }
    deadline = context.get("deadline")
    deadline_id = text_or_none(get(deadline, "id"))
    if isinstance(deadline, Mapping):
        facts["deadline"] = {"id": deadline_id, "time": time_of(deadline.get("deadline_time"))}
    happened_at = identity.started_at if started else marked_at or ended_at
    if deadline is not None:
        happened_at = time_of(get(deadline, "deadline_time"))
    return emission.lifecycle(
        event_type, identity, facts, happened_at, deadline_id=deadline_id, marked_at=marked_at
    )


def _task_event(event_type: str, emission: Emission) -> WorkflowEvent:
    context = emission.context
    identity = run_identity(context)
    ti = context["ti"]
    task = _task_facts(context, ti)
    started = event_type == EventType.TASK_STARTED
    started_at, ended_at = time_of(get(ti, "start_date")), time_of(get(ti, "end_date"))
    marked_at = context.get(MARKED_AT)
    if started:
        ended_at = None
    elif ended_at is None and event_type in _STATE_OF:
        ended_at = now()  # the task runner tells Airflow when a task was skipped, but not its listeners
    facts = _run_facts(emission, identity) | {
        "state": enum_value(get(ti, "state")) or _STATE_OF.get(event_type),
        "previous_state": _previous_state(event_type, marked_at),
        "reason": "marked_manually" if marked_at else None,
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(started_at, ended_at),
        "url": ui_url(emission.settings.base_url, identity, task),
        "task": task,
        "error": exception_error(context.get("exception")),
    }
    subject = {name: task[name] for name in ("task_id", "map_index", "try_number")}
    subject |= {"region_id": _region_id(ti), "marked_at": marked_at}
    happened_at = started_at if started else marked_at or ended_at
    return emission.lifecycle(event_type, identity, facts, happened_at, **subject)


def published_event(
    context: Mapping[str, Any],
    event_type: str,
    settings: Settings,
    *,
    data: Any,
    environment: str,
    workflow_id: str | None = None,
    workflow_run_id: str | None = None,
) -> WorkflowEvent:
    """Return the event that a task publishes in its own words.

    Its id is the same in every try of the task, so that a retry after an unknown outcome repeats the event
    rather than adding another; clearing the run makes a new one.

    Args:
        context: the task's context.
        event_type: what happened.
        settings: the ``[workflow_events]`` options.
        data: ``payload.data``; ``None`` for none.
        environment: for ``metadata.environment``.
        workflow_id: Default: the DAG's id.
        workflow_run_id: Default: the run's id.

    Raises:
        pydantic.ValidationError: ``data`` has a value that JSON cannot carry; the message names its path.
    """
    own = run_identity(context)
    about = RunIdentity(
        workflow_id or own.workflow_id,
        workflow_run_id or own.workflow_run_id,
        own.clear_number,
        own.started_at,
    )
    author = f"{own.workflow_id}/{own.workflow_run_id}/{get(context.get('ti'), 'task_id')}"
    return Emission(context, settings, environment, "operator").own(event_type, about, author, data)


# The state that an event type means, for contexts that carry none.
_STATE_OF: dict[str, str] = {
    EventType.WORKFLOW_STARTED: "running",
    EventType.WORKFLOW_COMPLETED: "success",
    EventType.WORKFLOW_FAILED: "failed",
    EventType.TASK_STARTED: "running",
    EventType.TASK_COMPLETED: "success",
    EventType.TASK_FAILED: "failed",
    EventType.TASK_RETRYING: "up_for_retry",
    EventType.TASK_SKIPPED: "skipped",
}


_TASK_TYPE_OF: dict[str, EventType] = {
    state: EventType(kind) for kind, state in _STATE_OF.items() if kind.startswith("task.")
}


def _previous_state(event_type: str, marked_at: object) -> str | None:
    if marked_at is not None or event_type not in _STATE_OF:  # what was marked may have ended before
        return None
    return "queued" if event_type in {EventType.WORKFLOW_STARTED, EventType.TASK_STARTED} else "running"


def _run_facts(emission: Emission, identity: RunIdentity) -> dict[str, Any]:
    run = emission.context.get("dag_run")
    return {
        "run_type": enum_value(get(run, "run_type")),
        "clear_number": identity.clear_number,
        "logical_date": time_of(get(run, "logical_date") or emission.context.get("logical_date")),
        "data_interval_start": time_of(get(run, "data_interval_start")),
        "data_interval_end": time_of(get(run, "data_interval_end")),
        "partition_key": text_or_none(get(run, "partition_key")),
        "queued_at": identity.queued_at,
        "started_at": identity.started_at,
        "triggered_by": enum_value(get(run, "triggered_by")),
        "triggering_user_name": text_or_none(get(run, "triggering_user_name")),
        "conf": allowed_conf(get(run, "conf"), emission.settings.conf_keys),
    }


def _task_facts(context: Mapping[str, Any], ti: object) -> dict[str, Any]:
    task = context.get("task") or get(ti, "task")
    return {
        "task_id": text_or_none(get(ti, "task_id")),
        "map_index": _index_of(ti),
        "try_number": number_of(get(ti, "try_number")),
        "max_tries": number_of(get(ti, "max_tries")),
        "operator": text_or_none(get(task, "task_type")) or text_or_none(get(ti, "operator")),
    }


def _index_of(ti: object) -> int | None:
    """Return the index of a mapped task, or from Airflow 3.4 on of a task in a loop."""
    index = number_of(get(ti, "map_index"))
    in_region = number_of(get(ti, "region_index"))
    return in_region if index in {None, -1} and in_region is not None else index


def _region_id(ti: object) -> str | None:
    """Return which loop or mapped group of Airflow 3.4 a task is in; one in none has the id 0 there."""
    region_id = get(ti, "region_id")
    return str(region_id) if isinstance(region_id, UUID) and region_id.int else None
