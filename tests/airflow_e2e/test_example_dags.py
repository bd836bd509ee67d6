"""Every example DAG runs in real Airflow processes and leaves the events it promises."""

from __future__ import annotations

import pytest

from airflow_workflow_events import WorkflowEvent
from demo.expectations import EXPECTED, task_of
from tests.airflow_e2e.deployment import Airflow

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow")]


def run_example(airflow: Airflow, name: str, state: str = "success") -> list[WorkflowEvent]:
    """Run an example, check its state and that its events are exactly the expected ones."""
    run_id, ended_as = airflow.run(name)
    assert ended_as == state
    events = airflow.events(run_id, len(EXPECTED[name]))
    found = sorted((str(event.event_type), task_of(event) or "") for event in events)
    assert found == sorted((kind, task or "") for kind, task in EXPECTED[name])
    assert len({event.event_id for event in events}) == len(events)
    for event in events:
        assert event.workflow_id == name
        assert event.source == "airflow"
        assert event.metadata.source_instance == "test-airflow"
        assert event.metadata.orchestrator_version
        assert event.metadata.emitted_at is not None
    return events


def of_type(events: list[WorkflowEvent], event_type: str) -> WorkflowEvent:
    """Return the one event of a type."""
    [event] = [event for event in events if event.event_type == event_type]
    return event


def test_the_operator_publishes_its_rendered_data_and_hands_on_where_the_event_went(airflow: Airflow) -> None:
    events = run_example(airflow, "example_publish_with_operator")
    loaded = of_type(events, "orders.loaded")
    assert loaded.payload.data == {
        "run": loaded.workflow_run_id,
        "files": [{"name": "orders_manual.csv", "rows": 1280}],
    }
    assert loaded.metadata.environment == "test"
    assert loaded.metadata.emitted_by == "operator"
    assert of_type(events, "orders.ready").payload.data == {"previous_event": loaded.event_id}


def test_callbacks_publish_what_becomes_of_the_run_and_its_task(airflow: Airflow) -> None:
    events = run_example(airflow, "example_publish_with_callbacks")
    completed = of_type(events, "workflow.completed")
    data = completed.payload.data
    assert data["state"] == "success"
    assert data["reason"] == "success"
    assert data["run_type"] == "manual"
    assert data["clear_number"] == 0
    assert data["duration_seconds"] > 0
    assert data["logical_date"] is None
    assert data["error"] is None
    assert data["url"].endswith(
        f"/dags/example_publish_with_callbacks/runs/{completed.workflow_run_id.replace(':', '%3A')}"
    )
    assert completed.metadata.tags == ["workflow-events"]
    assert of_type(events, "sales.refreshed").payload.data["table"] == "sales"
    started, finished = of_type(events, "task.started"), of_type(events, "task.completed")
    assert started.payload.data["task"] == finished.payload.data["task"]
    assert finished.payload.data["task"]["try_number"] == 1
    assert finished.payload.data["duration_seconds"] > 0


def test_the_notifier_reports_a_missed_deadline_and_the_completion(airflow: Airflow) -> None:
    events = run_example(airflow, "example_notify_of_missed_deadline")
    missed = of_type(events, "workflow.deadline_missed")
    assert missed.payload.data["state"] == "running"
    assert missed.payload.data["escalate_to"] == "data-platform"
    assert missed.metadata.emitted_by == "notifier"
    completed = of_type(events, "workflow.completed")
    assert completed.payload.data["note"] == f"run {completed.workflow_run_id} is done"


def test_a_mapped_task_publishes_an_event_for_each_input(airflow: Airflow) -> None:
    events = run_example(airflow, "example_publish_what_a_function_returns")
    assert sorted((event.payload.data["region"], event.payload.data["rows"]) for event in events) == [
        ("apac", 400),
        ("eu", 200),
        ("us", 200),
    ]
    assert {event.metadata.environment for event in events} == {"demo"}


def test_a_failing_etl_leaves_an_event_of_every_step_and_no_password(airflow: Airflow) -> None:
    events = run_example(airflow, "example_etl_that_fails_and_retries", state="failed")
    retrying = of_type(events, "task.retrying")
    assert retrying.payload.data["state"] == "up_for_retry"
    assert retrying.payload.data["task"]["try_number"] == 1
    assert retrying.payload.data["error"]["type"] == "ConnectionError"
    failed_task = of_type(events, "task.failed")
    assert failed_task.payload.data["error"]["type"] == "RuntimeError"
    assert failed_task.payload.data["error"]["message"] == (
        "cannot write 3 rows to postgresql://etl:***@warehouse/sales"
    )
    assert "in load" in failed_task.payload.data["error"]["stack_trace"]
    failed = of_type(events, "workflow.failed")
    assert failed.payload.data["failed_tasks"] == ["load"]
    assert failed.payload.data["error"]["message"] == "failed tasks: load"
    assert failed.payload.data["reason"] == "task_failure"
    assert failed.metadata.owner == "data-platform"
    assert all("s3cr3t-canary" not in event.model_dump_json() for event in events)
