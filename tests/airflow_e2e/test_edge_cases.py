"""What Airflow and Kafka do on a bad day, in real processes."""

from __future__ import annotations

import pytest

from airflow_workflow_events.events import DEFAULT_TOPIC
from tests.airflow_e2e.deployment import Airflow
from tests.airflow_names import since_airflow
from tests.programs import require_program
from tests.subprocesses import output_of

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow")]


def test_a_run_without_tasks_is_reported_from_airflows_minimal_context(airflow: Airflow) -> None:
    run_id, state = airflow.run("edge_without_tasks")
    assert state == "success"
    [event] = airflow.events(run_id, 1)
    assert event.event_type == "workflow.completed"
    assert event.payload.data["state"] == "success"


@since_airflow(3, 2, "gives callbacks of such a run all of a context")
def test_a_run_of_skipped_tasks_is_reported_although_a_template_fails(airflow: Airflow) -> None:
    run_id, state = airflow.run("edge_all_skipped")
    assert state == "success"
    events = airflow.events(run_id, 3)
    assert sorted(str(event.event_type) for event in events) == [
        "task.skipped",
        "workflow.completed",
        "workflow.completed",
    ]
    completed = [event for event in events if event.event_type == "workflow.completed"]
    assert len({event.event_id for event in completed}) == 2, (
        "without the run's start its repetition could not be told from it, so the ids are random"
    )


def test_a_run_that_timed_out_says_so(airflow: Airflow) -> None:
    run_id, state = airflow.run("edge_timed_out")
    assert state == "failed"
    [event] = airflow.events(run_id, 1)
    assert event.event_type == "workflow.failed"
    assert event.payload.data["reason"] == "timed_out"


def test_a_dag_does_not_notice_that_its_callbacks_find_no_kafka(airflow: Airflow) -> None:
    _, state = airflow.run("edge_kafka_is_away")
    assert state == "success"


def test_the_operators_task_fails_when_there_is_no_kafka(airflow: Airflow) -> None:
    run_id, state = airflow.run("edge_operator_without_kafka")
    assert state == "failed"
    [instance] = airflow.deployment.get(f"/dags/edge_operator_without_kafka/dagRuns/{run_id}/taskInstances")[
        "task_instances"
    ]
    log = airflow.deployment.request(
        "GET", f"/dags/edge_operator_without_kafka/dagRuns/{run_id}/taskInstances/publish/logs/1"
    ).text
    assert instance["state"] == "failed"
    assert "no Kafka broker at 127.0.0.1:1 answered" in log


def test_kcat_reads_the_events_with_their_headers(airflow: Airflow) -> None:
    kcat = require_program("kcat")
    run_id, _ = airflow.run("edge_without_tasks")
    [event] = airflow.events(run_id, 1)
    text = output_of(
        kcat,
        "-b",
        airflow.broker.bootstrap_servers,
        "-t",
        DEFAULT_TOPIC,
        "-C",
        "-e",
        "-q",
        "-f",
        "%k|%h|%s\n",
    )
    [line] = [line for line in text.splitlines() if run_id in line]
    key, headers, value = line.split("|", 2)
    assert key == f"edge_without_tasks/{run_id}"
    assert f"ce_id={event.event_id}" in headers
    assert "ce_type=workflow.completed" in headers
    assert "content-type=application/json" in headers
    assert value.startswith(f'{{"event_id":"{event.event_id}"')


def test_the_provider_is_listed_with_its_connection_type_and_options(airflow: Airflow) -> None:
    assert "airflow-workflow-events" in airflow.deployment.run_cli("providers", "list")
    assert (
        airflow.deployment.run_cli("config", "get-value", "workflow_events", "source_instance").strip()
        == "test-airflow"
    )
    assert (
        airflow.deployment.run_cli("config", "get-value", "workflow_events", "topic").strip()
        == "workflow-events"
    )
