"""From what Airflow hands to callbacks, notifiers and operators to a workflow event. Translation only.

Airflow gives many shapes for the same thing: a full context in a task, a plain dict with a run in a DAG
callback, ``{dag, run_id, reason}`` and nothing else when a run had no task to speak of, a dict of strings in
a deadline alert. Everything is read defensively, nothing is looked up over a network but the failed tasks of
a run, and what is unknown is null.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Literal
from uuid import uuid4

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.identity import lifecycle_event_id
from airflow_workflow_events.events.model import (
    EventSource,
    EventType,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
)
from airflow_workflow_events.events.sizes import fit
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
from airflow_workflow_events.settings import Settings
from airflow_workflow_events.version import __version__

#: What a lifecycle event's ``payload.data`` consists of; a caller's own data may not use these names.
LIFECYCLE_FIELDS = (
    "state",
    "previous_state",
    "reason",
    "run_type",
    "clear_number",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "queued_at",
    "started_at",
    "ended_at",
    "duration_seconds",
    "url",
    "triggered_by",
    "triggering_user_name",
    "task",
    "failed_tasks",
    "error",
    "conf",
)


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
    if is_about_a_task(context):
        return _task_event(context, kind, settings, environment=environment, emitted_by=emitted_by, data=data)
    return _run_event(
        context,
        kind,
        settings,
        environment=environment,
        emitted_by=emitted_by,
        patience_seconds=patience_seconds,
        data=data,
    )


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


def _run_event(
    context: Mapping[str, Any],
    event_type: str,
    settings: Settings,
    *,
    environment: str,
    emitted_by: str,
    patience_seconds: float,
    data: Mapping[str, Any] | None = None,
) -> WorkflowEvent:
    identity = run_identity(context)
    run = context.get("dag_run")
    failed = event_type == EventType.WORKFLOW_FAILED
    started = event_type == EventType.WORKFLOW_STARTED
    ended_at = None if started else time_of(get(run, "end_date"))  # a run that was cleared still has its last
    failures = failed_tasks(context, identity, patience_seconds) if failed else None
    reason = text_or_none(context.get("reason"))
    facts = _run_facts(context, run, identity, settings) | {
        "state": enum_value(get(run, "state")) or _STATE_OF.get(event_type),
        "previous_state": ("queued" if started else "running") if event_type in _STATE_OF else None,
        "reason": reason,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(identity.started_at, ended_at),
        "url": ui_url(identity),
        "failed_tasks": failures,
        "error": run_error(reason, failures) if failed else None,
    }
    deadline = context.get("deadline")
    deadline_id = text_or_none(get(deadline, "id"))
    if isinstance(deadline, Mapping):
        facts["deadline"] = {"id": deadline_id, "time": time_of(deadline.get("deadline_time"))}
    happened_at = identity.started_at if started else ended_at
    if deadline is not None:
        happened_at = time_of(get(deadline, "deadline_time"))
    return _event(
        context,
        event_type,
        identity,
        facts,
        data,
        settings,
        event_id=_id(event_type, identity, settings, deadline_id=deadline_id),
        environment=environment,
        emitted_by=emitted_by,
        happened_at=happened_at,
    )


def _task_event(
    context: Mapping[str, Any],
    event_type: str,
    settings: Settings,
    *,
    environment: str,
    emitted_by: str,
    data: Mapping[str, Any] | None = None,
) -> WorkflowEvent:
    identity = run_identity(context)
    ti = context["ti"]
    task = _task_facts(context, ti)
    started = event_type == EventType.TASK_STARTED
    started_at, ended_at = time_of(get(ti, "start_date")), time_of(get(ti, "end_date"))
    if started:
        ended_at = None
    facts = _run_facts(context, context.get("dag_run"), identity, settings) | {
        "state": enum_value(get(ti, "state")) or _STATE_OF.get(event_type),
        "previous_state": "queued" if started else "running",
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(started_at, ended_at),
        "url": ui_url(identity, task),
        "task": task,
        "error": exception_error(context.get("exception")),
    }
    return _event(
        context,
        event_type,
        identity,
        facts,
        data,
        settings,
        event_id=_id(
            event_type,
            identity,
            settings,
            task_id=task["task_id"],
            map_index=task["map_index"],
            try_number=task["try_number"],
        ),
        environment=environment,
        emitted_by=emitted_by,
        happened_at=started_at if started else ended_at,
    )


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
    ti = context.get("ti")
    about = RunIdentity(
        workflow_id or own.workflow_id,
        workflow_run_id or own.workflow_run_id,
        own.clear_number,
        own.started_at,
    )
    return WorkflowEvent(
        event_id=lifecycle_event_id(
            event_type=event_type,
            workflow_id=about.workflow_id,
            workflow_run_id=about.workflow_run_id,
            source_instance=settings.source_instance,
            clear_number=about.clear_number,
            run_started_at=about.started_at,
            task_id=f"{own.workflow_id}/{own.workflow_run_id}/{get(ti, 'task_id')}",
            map_index=number_of(get(ti, "map_index")),
        ),
        event_type=event_type,
        source=EventSource.AIRFLOW,
        workflow_id=about.workflow_id,
        workflow_run_id=about.workflow_run_id,
        timestamp=now(),
        payload=WorkflowEventPayload(data={} if data is None else data),
        metadata=_metadata(context, settings, environment, "operator"),
    )


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


def _event(
    context: Mapping[str, Any],
    event_type: str,
    identity: RunIdentity,
    facts: dict[str, Any],
    data: Mapping[str, Any] | None,
    settings: Settings,
    *,
    event_id: str,
    environment: str,
    emitted_by: str,
    happened_at: dt.datetime | None,
) -> WorkflowEvent:
    ordered = {name: facts.get(name) for name in LIFECYCLE_FIELDS}
    extra = {name: value for name, value in facts.items() if name not in ordered}
    event = WorkflowEvent(
        event_id=event_id,
        event_type=event_type,
        source=EventSource.AIRFLOW,
        workflow_id=identity.workflow_id,
        workflow_run_id=identity.workflow_run_id,
        timestamp=happened_at or now(),
        payload=WorkflowEventPayload(data={**ordered, **extra, **(data or {})}),
        metadata=_metadata(context, settings, environment, emitted_by),
    )
    return fit(event)


def _metadata(
    context: Mapping[str, Any], settings: Settings, environment: str, emitted_by: str
) -> WorkflowEventMetadata:
    dag, ti = context.get("dag"), context.get("ti")
    tags = get(dag, "tags")
    carrier = get(ti, "context_carrier")
    return WorkflowEventMetadata(
        environment=environment,
        source_instance=settings.source_instance,
        tags=sorted(filter(None, map(text_or_none, tags))) or None if isinstance(tags, Collection) else None,
        owner=text_or_none(get(context.get("task"), "owner")) or _owners(get(dag, "owner")),
        team=text_or_none(get(context.get("dag_run"), "team_name")),
        traceparent=text_or_none(carrier.get("traceparent")) if isinstance(carrier, Mapping) else None,
        emitted_at=now(),
        emitted_by=emitted_by,
        producer=f"airflow-workflow-events/{__version__}",
        orchestrator_version=_airflow_version(),
    )


def _owners(owner: object) -> str | None:
    """Return a DAG's owners in a stable order: Airflow joins the owners of its tasks as a set gives them."""
    names = {name.strip() for name in (text_or_none(owner) or "").split(",")}
    return ", ".join(sorted(names - {""})) or None


def _run_facts(
    context: Mapping[str, Any], run: object, identity: RunIdentity, settings: Settings
) -> dict[str, Any]:
    return {
        "run_type": enum_value(get(run, "run_type")),
        "clear_number": identity.clear_number,
        "logical_date": time_of(get(run, "logical_date") or context.get("logical_date")),
        "data_interval_start": time_of(get(run, "data_interval_start")),
        "data_interval_end": time_of(get(run, "data_interval_end")),
        "queued_at": time_of(get(run, "queued_at")),
        "started_at": identity.started_at,
        "triggered_by": enum_value(get(run, "triggered_by")),
        "triggering_user_name": text_or_none(get(run, "triggering_user_name")),
        "conf": allowed_conf(get(run, "conf"), settings.conf_keys),
    }


def _task_facts(context: Mapping[str, Any], ti: object) -> dict[str, Any]:
    task = context.get("task") or get(ti, "task")
    return {
        "task_id": text_or_none(get(ti, "task_id")),
        "map_index": number_of(get(ti, "map_index")),
        "try_number": number_of(get(ti, "try_number")),
        "max_tries": number_of(get(ti, "max_tries")),
        "operator": text_or_none(get(task, "task_type")),
    }


def _id(event_type: str, identity: RunIdentity, settings: Settings, **subject: Any) -> str:
    if identity.clear_number is None and identity.started_at is None:
        # Airflow's minimal context: a repetition of the run could not be told from the run. A consumer that
        # gets one happening twice is better off than one that takes the second happening for the first.
        return str(uuid4())
    return lifecycle_event_id(
        event_type=event_type,
        workflow_id=identity.workflow_id,
        workflow_run_id=identity.workflow_run_id,
        source_instance=settings.source_instance,
        clear_number=identity.clear_number,
        run_started_at=identity.started_at,
        **subject,
    )


def _airflow_version() -> str:
    from airflow import __version__ as version

    return str(version)
