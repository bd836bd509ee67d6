"""Every shape in which Airflow tells what happened, and the event it becomes."""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from airflow.sdk import BaseOperator, DagRunState, TaskInstanceState
from airflow.utils.state import DagRunState as CoreDagRunState
from airflow.utils.state import TaskInstanceState as CoreTaskInstanceState
from airflow.utils.types import DagRunTriggeredByType

from airflow_workflow_events import ConfigurationError, EventType, WorkflowEvent
from airflow_workflow_events.events.codec import to_json
from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from airflow_workflow_events.lifecycle.translate import Outcome, event_type_of, lifecycle_event
from airflow_workflow_events.settings import Settings
from airflow_workflow_events.version import __version__
from tests.airflow_names import DagSerialization
from tests.unit.airflow_side.contexts import (
    DAG_ID,
    ENDED_AT,
    RUN_ID,
    STARTED_AT,
    TRACEPARENT,
    dag_context,
    deadline_context,
    make_dag,
    make_run,
    minimal_context,
    task_context,
)


def event_of(
    context: Mapping[str, Any],
    outcome: Outcome | None = None,
    event_type: str | None = None,
    data: Mapping[str, Any] | None = None,
    patience_seconds: float = 5.0,
) -> WorkflowEvent:
    """The event of a context, as a callback makes it."""
    return lifecycle_event(
        context,
        event_type,
        Settings.load(),
        outcome=outcome,
        environment="test",
        emitted_by="callback",
        data=data,
        patience_seconds=patience_seconds,
    )


def filled(event: WorkflowEvent) -> dict[str, Any]:
    """``payload.data`` without its nulls."""
    return {name: value for name, value in event.payload.data.items() if value is not None}


def empty_texts(value: Any) -> bool:
    """Whether an empty string is anywhere in a JSON value."""
    if isinstance(value, dict):
        return any(map(empty_texts, value.values()))
    return any(map(empty_texts, value)) if isinstance(value, list) else value == ""


SHAPES: dict[str, Callable[[], dict[str, Any]]] = {
    "DAG callback": dag_context,
    "failed DAG callback": lambda: dag_context("task_failure", make_run(state=DagRunState.FAILED)),
    "minimal": minimal_context,
    "task callback": task_context,
    "failed task callback": lambda: task_context(TaskInstanceState.FAILED, exception=ValueError("x")),
    "deadline": deadline_context,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_event_has_all_lifecycle_fields_and_nulls_for_what_is_unknown(shape: str) -> None:
    event = event_of(SHAPES[shape]())

    assert set(LIFECYCLE_FIELDS) <= set(event.payload.data)
    assert not empty_texts(event.model_dump(mode="json"))
    assert (event.workflow_id, event.workflow_run_id, event.source) == (DAG_ID, RUN_ID, "airflow")
    assert event.metadata.environment == "test"
    assert event.metadata.emitted_by == "callback"
    assert event.metadata.orchestrator_version == airflow_version
    assert event.metadata.producer == f"airflow-workflow-events/{__version__}"
    assert event.metadata.truncated is None


def test_a_dag_callback_tells_of_the_run() -> None:
    event = event_of(dag_context())

    assert event.event_type == EventType.WORKFLOW_COMPLETED
    assert event.timestamp == ENDED_AT
    assert filled(event) == {
        "state": "success",
        "previous_state": "running",
        "reason": "success",
        "run_type": "manual",
        "clear_number": 0,
        "logical_date": "2026-11-22T00:00:00Z",
        "data_interval_start": "2026-11-21T00:00:00Z",
        "data_interval_end": "2026-11-22T00:00:00Z",
        "started_at": "2026-11-23T02:44:30.250000Z",
        "ended_at": "2026-11-23T02:44:35.750000Z",
        "duration_seconds": 5.5,
        "triggering_user_name": "alice",
    }
    assert event.metadata.tags == ["daily", "sales"]
    assert event.metadata.owner == "data-platform"
    assert event.metadata.traceparent == TRACEPARENT


def test_a_dag_callback_of_a_failure_tells_the_reason() -> None:
    event = event_of(dag_context("timed_out", make_run(state=DagRunState.FAILED)))

    assert event.event_type == EventType.WORKFLOW_FAILED
    assert event.payload.data["state"] == "failed"
    assert event.payload.data["reason"] == "timed_out"
    assert event.payload.data["error"] == {"type": None, "message": "timed_out", "stack_trace": None}


def test_the_context_of_a_run_without_tasks_is_enough() -> None:
    before = dt.datetime.now(dt.UTC)
    event = event_of(minimal_context("success"))

    assert event.event_type == EventType.WORKFLOW_COMPLETED
    assert before <= event.timestamp <= dt.datetime.now(dt.UTC)
    assert filled(event) == {"state": "success", "previous_state": "running", "reason": "success"}
    assert event.metadata.tags == ["daily", "sales"]


@pytest.mark.parametrize("reason", ["task_failure", "timed_out", "all_tasks_deadlocked"])
def test_any_other_reason_of_a_minimal_context_is_a_failure(reason: str) -> None:
    event = event_of(minimal_context(reason))

    assert event.event_type == EventType.WORKFLOW_FAILED
    assert event.payload.data["state"] == "failed"
    assert event.payload.data["error"]["message"] == reason


def test_a_minimal_context_without_a_reason_needs_the_callback_to_say_what_happened() -> None:
    context = minimal_context(None)

    with pytest.raises(ConfigurationError, match="give the callback an event_type"):
        event_of(context)
    assert event_of(context, "failure").event_type == EventType.WORKFLOW_FAILED
    assert event_of(context, event_type="sales.refreshed").event_type == "sales.refreshed"


def test_a_run_without_a_logical_date_has_none() -> None:
    run = make_run(logical_date=None, data_interval_start=None, data_interval_end=None)

    for context in (dag_context(run=run), task_context(run=run)):
        assert "logical_date" not in context
        data = event_of(context).payload.data
        assert data["logical_date"] is data["data_interval_start"] is data["data_interval_end"] is None


def test_a_task_callback_tells_of_the_try() -> None:
    event = event_of(task_context(TaskInstanceState.SUCCESS, try_number=2, map_index=3))

    assert event.event_type == EventType.TASK_COMPLETED
    assert event.timestamp == ENDED_AT
    data = filled(event)
    assert data["state"] == "success"
    assert (data["started_at"], data["ended_at"], data["duration_seconds"]) == (
        "2026-11-23T02:44:30.250000Z",
        "2026-11-23T02:44:35.750000Z",
        5.5,
    )
    assert data["task"] == {
        "task_id": "load",
        "map_index": 3,
        "try_number": 2,
        "max_tries": 2,
        "operator": "BaseOperator",
    }
    assert "error" not in data
    assert "failed_tasks" not in data


def test_a_failed_task_tells_its_exception() -> None:
    class NoRowsError(LookupError):
        pass

    def look_up() -> None:
        try:
            _ = dict[str, int]()["eu"]
        except KeyError as cause:
            raise NoRowsError("no rows for region eu") from cause

    with pytest.raises(NoRowsError) as caught:
        look_up()
    event = event_of(task_context(TaskInstanceState.FAILED, exception=caught.value))

    assert event.event_type == EventType.TASK_FAILED
    found = event.payload.data["error"]
    assert found["type"].endswith(".NoRowsError")
    assert found["type"].startswith(f"{__name__}.")
    assert found["message"] == "no rows for region eu"
    assert found["stack_trace"].startswith("Traceback")
    assert "KeyError: 'eu'" in found["stack_trace"]
    assert "test_a_failed_task_tells_its_exception" in found["stack_trace"]


def test_an_exception_that_airflow_gives_as_text_is_the_message() -> None:
    event = event_of(task_context(TaskInstanceState.FAILED, exception="Task marked as failed externally"))

    assert event.payload.data["error"] == {
        "type": None,
        "message": "Task marked as failed externally",
        "stack_trace": None,
    }


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        (TaskInstanceState.RUNNING, None, EventType.TASK_STARTED),
        (TaskInstanceState.SUCCESS, None, EventType.TASK_COMPLETED),
        (TaskInstanceState.FAILED, None, EventType.TASK_FAILED),
        (TaskInstanceState.UP_FOR_RETRY, None, EventType.TASK_RETRYING),
        (TaskInstanceState.SKIPPED, None, EventType.TASK_SKIPPED),
        ("skipped", None, EventType.TASK_SKIPPED),
        (CoreTaskInstanceState.UP_FOR_RETRY, None, EventType.TASK_RETRYING),
        (TaskInstanceState.RUNNING, "success", EventType.TASK_COMPLETED),
        (TaskInstanceState.RUNNING, "failure", EventType.TASK_FAILED),
        (TaskInstanceState.UP_FOR_RETRY, "failure", EventType.TASK_RETRYING),
        (CoreTaskInstanceState.UP_FOR_RETRY, "failure", EventType.TASK_RETRYING),
        (None, "failure", EventType.TASK_FAILED),
    ],
)
def test_a_tasks_event_is_named_by_its_state_and_by_the_callback(
    state: Any, outcome: Outcome | None, expected: EventType
) -> None:
    assert event_type_of(task_context(state), outcome) is expected


@pytest.mark.parametrize("state", [None, TaskInstanceState.DEFERRED, "no_such_state"])
def test_a_task_state_without_an_event_needs_the_callback_to_say_what_happened(state: Any) -> None:
    with pytest.raises(ConfigurationError, match="give the callback an event_type"):
        event_type_of(task_context(state), None)


@pytest.mark.parametrize("enum", [DagRunState, CoreDagRunState])
def test_states_of_airflows_core_and_of_its_sdk_are_the_same(enum: Any) -> None:
    run = make_run().model_copy(update={"state": enum("failed")})
    event = event_of(dag_context(None, run))

    assert event.event_type == EventType.WORKFLOW_FAILED
    assert event.payload.data["state"] == "failed"


def test_a_deadline_alert_tells_of_the_deadline() -> None:
    event = event_of(deadline_context())

    assert event.event_type == EventType.WORKFLOW_DEADLINE_MISSED
    assert event.timestamp == dt.datetime(2026, 11, 23, 2, 45, tzinfo=dt.UTC)
    assert filled(event) == {
        "state": "running",
        "run_type": "manual",
        "clear_number": 0,
        "logical_date": "2026-11-22T00:00:00Z",
        "queued_at": "2026-11-23T02:44:29Z",
        "started_at": "2026-11-23T02:44:30.250000Z",
        "triggered_by": "rest_api",
        "deadline": {"id": "0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c11", "time": "2026-11-23T02:45:00Z"},
    }


def test_two_deadlines_of_one_run_are_two_events() -> None:
    one, other = deadline_context(), deadline_context()
    other["deadline"]["id"] = "0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c99"

    assert event_of(one).event_id == event_of(deadline_context()).event_id
    assert event_of(one).event_id != event_of(other).event_id


def test_a_run_as_the_scheduler_has_it_gives_the_same_event_and_more() -> None:
    # What a listener gets is the database's row, with attributes that a callback's run lacks.
    row = types.SimpleNamespace(
        **make_run().model_dump(),
        queued_at=STARTED_AT - dt.timedelta(seconds=1),
        triggered_by=DagRunTriggeredByType.UI,
    )
    seen = event_of({"dag_run": row, "dag": make_dag(), "run_id": RUN_ID, "reason": "success"})
    called_back = event_of(dag_context())

    assert seen.event_id == called_back.event_id
    assert seen.payload.data["queued_at"] == "2026-11-23T02:44:29.250000Z"
    assert seen.payload.data["triggered_by"] == "ui"


def test_listener_and_callback_see_one_task_try_as_one_event() -> None:
    context = task_context(TaskInstanceState.SUCCESS, try_number=2)
    ti = context["ti"]
    row = types.SimpleNamespace(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1,
        try_number=2,
        max_tries=2,
        state=CoreTaskInstanceState.SUCCESS,
        start_date=ti.start_date,
        end_date=ti.end_date,
    )

    assert event_of({"ti": row, "dag_run": context["dag_run"]}).event_id == event_of(context).event_id


def test_each_happening_has_an_id_of_its_own() -> None:
    later = STARTED_AT + dt.timedelta(microseconds=1)
    contexts = [
        dag_context(),
        dag_context(run=make_run(clear_number=1)),
        dag_context(run=make_run(start_date=later)),
        dag_context(run=make_run(clear_number=None)),
        minimal_context(),
        task_context(),
        task_context(TaskInstanceState.FAILED),
        task_context(try_number=2),
        task_context(map_index=0),
        task_context(task=make_dag().get_task("extract")),
    ]

    assert len({event_of(context).event_id for context in contexts}) == len(contexts)


def test_an_unknown_clear_number_is_null() -> None:
    assert event_of(dag_context(run=make_run(clear_number=None))).payload.data["clear_number"] is None


def test_the_deployments_name_is_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = event_of(dag_context())
    monkeypatch.setenv("AIRFLOW__WORKFLOW_EVENTS__SOURCE_INSTANCE", "airflow-eu")
    named = event_of(dag_context())

    assert named.metadata.source_instance == "airflow-eu"
    assert named.event_id != nameless.event_id


def test_a_serialised_dag_is_as_good_as_a_dag() -> None:
    dag = make_dag()
    context = dag_context(dag=dag)
    context["dag"] = DagSerialization.from_dict(DagSerialization.to_dict(dag))

    event = event_of(context)
    assert event.metadata.tags == ["daily", "sales"]
    assert event.event_id == event_of(dag_context()).event_id


def test_an_owner_is_the_tasks_or_else_the_dags() -> None:
    dag = make_dag()
    BaseOperator(task_id="another", owner="finance", dag=dag)

    assert event_of(dag_context(dag=dag, task_id="another")).metadata.owner == "finance"
    # Airflow joins them in the order of a set; the event has them in a stable one.
    assert event_of(minimal_context(dag=dag)).metadata.owner == "data-platform, finance"


def test_a_callers_data_stands_beside_the_lifecycles() -> None:
    event = event_of(dag_context(), data={"table": "sales"})

    assert event.payload.data["table"] == "sales"
    assert event.payload.data["state"] == "success"


def test_a_times_zone_does_not_matter() -> None:
    east = dt.timezone(dt.timedelta(hours=9))
    event = event_of(
        dag_context(run=make_run(start_date=STARTED_AT.astimezone(east), end_date=ENDED_AT.astimezone(east)))
    )

    assert event.event_id == event_of(dag_context()).event_id
    assert event.payload.data["ended_at"] == "2026-11-23T02:44:35.750000Z"
    assert '"timestamp":"2026-11-23T02:44:35.750000Z"' in to_json(event).decode()


def test_an_event_that_is_too_large_is_shortened_and_says_where() -> None:
    event = event_of(
        task_context(TaskInstanceState.FAILED, exception=ValueError("x" * 100)), data={"rows": ["y" * 99_999]}
    )

    assert len(to_json(event)) <= 65_536
    assert event.metadata.truncated is not None
    assert "payload.data.rows" in event.metadata.truncated
    assert event.payload.data["state"] == "failed"


def test_what_became_of_a_run_after_a_task_of_it_was_asked_for() -> None:
    # A context of a DAG callback has a task instance too: only its reason tells it from a task's.
    context = dag_context()
    assert event_of(context).event_type == EventType.WORKFLOW_COMPLETED
    del context["reason"]
    assert event_of(context, "success").event_type == EventType.TASK_COMPLETED


@pytest.mark.parametrize("context", [{}, {"dag": None, "run_id": "r"}, {"dag": make_dag(), "run_id": ""}])
def test_a_context_without_a_dag_or_a_run_is_a_key_error_naming_what_there_is(
    context: dict[str, Any],
) -> None:
    with pytest.raises(KeyError, match="the context has no DAG id or run id"):
        event_of(context, "success")
