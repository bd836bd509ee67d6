"""The factories make events that production could have published, under production's ids."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pydantic
import pytest
from airflow.sdk import DagRunState, TaskInstanceState

from airflow_workflow_events import EventType
from airflow_workflow_events.events import decode, encode
from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from airflow_workflow_events.lifecycle.translate import lifecycle_event
from airflow_workflow_events.settings import Settings
from airflow_workflow_events.testing import make_event, make_lifecycle_event, run_events
from tests.unit.airflow_side.contexts import (
    DAG_ID,
    ENDED_AT,
    RUN_ID,
    STARTED_AT,
    dag_context,
    make_run,
    task_context,
)

RUN: dict[str, Any] = {"workflow_id": DAG_ID, "workflow_run_id": RUN_ID, "run_started_at": STARTED_AT}
SECONDS = (ENDED_AT - STARTED_AT).total_seconds()


def of_production(context: Mapping[str, Any], event_type: str | None = None) -> Any:
    return lifecycle_event(
        context, event_type, Settings.load(), outcome=None, environment="test", emitted_by="listener"
    )


def test_an_event_is_valid_as_it_is_and_takes_any_field() -> None:
    event = make_event(event_type="orders.loaded", data={"rows": 3}, environment="prod", workflow_id="w")

    assert (event.event_type, event.workflow_id, event.workflow_run_id) == ("orders.loaded", "w", "manual__1")
    assert event.payload.data == {"rows": 3}
    assert event.metadata.environment == "prod"
    assert make_event(payload={"data": {"rows": 4}}, data={"rows": 3}).payload.data == {"rows": 4}


def test_two_events_are_told_apart_by_their_ids() -> None:
    assert make_event().event_id != make_event().event_id


def test_a_field_that_is_wrong_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="workflow_id"):
        make_event(workflow_id="")


@pytest.mark.parametrize("state", [DagRunState.SUCCESS, DagRunState.FAILED])
def test_the_event_of_a_run_has_productions_id_time_and_fields(state: DagRunState) -> None:
    succeeded = state is DagRunState.SUCCESS
    kind = EventType.WORKFLOW_COMPLETED if succeeded else EventType.WORKFLOW_FAILED
    reason = "success" if succeeded else "task_failure"
    real = of_production(dag_context(reason, run=make_run(state=state)))

    made = make_lifecycle_event(kind, **RUN, duration_seconds=SECONDS)

    assert (made.event_id, made.event_type, made.timestamp) == (real.event_id, kind, real.timestamp)
    assert tuple(made.payload.data) == tuple(real.payload.data) == LIFECYCLE_FIELDS
    for name in ("state", "previous_state", "reason", "error", "started_at", "ended_at", "duration_seconds"):
        assert made.payload.data[name] == real.payload.data[name]


@pytest.mark.parametrize(
    ("state", "event_type"),
    [
        (TaskInstanceState.SUCCESS, EventType.TASK_COMPLETED),
        (TaskInstanceState.FAILED, EventType.TASK_FAILED),
        (TaskInstanceState.UP_FOR_RETRY, EventType.TASK_RETRYING),
        (TaskInstanceState.SKIPPED, EventType.TASK_SKIPPED),
        (TaskInstanceState.RUNNING, EventType.TASK_STARTED),
    ],
)
@pytest.mark.parametrize("map_index", [-1, 2])
def test_the_event_of_a_task_has_productions_id_and_fields(
    state: TaskInstanceState, event_type: EventType, map_index: int
) -> None:
    real = of_production(task_context(state, map_index=map_index, try_number=3), event_type)

    made = make_lifecycle_event(event_type, **RUN, task_id="load", map_index=map_index, try_number=3)

    assert (made.event_id, made.event_type) == (real.event_id, event_type)
    assert tuple(made.payload.data) == tuple(real.payload.data)
    assert made.payload.data["task"].keys() == real.payload.data["task"].keys()
    for name in ("state", "previous_state", "reason", "started_at"):
        assert made.payload.data[name] == real.payload.data[name]


def test_a_type_of_a_task_is_about_a_task_and_others_are_not() -> None:
    assert make_lifecycle_event("task.failed").payload.data["task"]["task_id"] == "load"
    assert make_lifecycle_event("workflow.failed").payload.data["task"] is None


def test_data_replaces_and_adds() -> None:
    data = make_lifecycle_event(data={"reason": "all_done", "rows": 3}).payload.data

    assert (data["reason"], data["rows"], data["state"]) == ("all_done", 3, "success")


def test_a_run_is_its_start_and_what_became_of_it() -> None:
    assert [event.event_type for event in run_events()] == ["workflow.started", "workflow.completed"]
    assert [event.event_type for event in run_events(state="failed")] == [
        "workflow.started",
        "workflow.failed",
    ]
    assert [event.event_type for event in run_events(state="running")] == ["workflow.started"]
    started, completed = run_events(duration_seconds=90)
    assert completed.timestamp - started.timestamp == dt.timedelta(seconds=90)


def test_the_same_run_has_the_same_events_and_another_has_others() -> None:
    others: list[dict[str, Any]] = [
        {"workflow_id": "w"},
        {"workflow_run_id": "r"},
        {"clear_number": 1},
        {"run_started_at": STARTED_AT},
        {"source_instance": "eu"},
    ]

    assert run_events() == run_events()
    ids = {event.event_id for run in ({}, *others) for event in run_events(**run)}
    assert len(ids) == 2 * (1 + len(others))


def test_what_is_made_survives_the_way_through_kafka() -> None:
    for event in [*run_events(), make_event(), make_lifecycle_event("task.retrying")]:
        record = encode(event)
        assert decode(record.value, record.headers) == event
