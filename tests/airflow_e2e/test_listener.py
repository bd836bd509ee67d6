"""One setting publishes the events of every DAG, with the connection in Airflow's own database."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.events import DEFAULT_TOPIC
from demo.deployment import COMPONENTS, AirflowDeployment
from tests.airflow_e2e.deployment import Airflow
from tests.airflow_versions import AIRFLOW, PROVIDERS_HAVE_COMMANDS
from tests.broker import Broker, event_of
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow")]


@pytest.fixture(scope="module")
def listening(embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """An Airflow whose DAGs know nothing of events, and whose listener is on."""
    home = tmp_path_factory.mktemp("listening")
    dags = home / "dags"
    shutil.copytree(Path(__file__).parent / "dags_without_events", dags)
    embedded_broker.create_topic("chosen")
    outbox = home / "events" / "outbox.db"
    outbox.parent.mkdir()
    config = {
        "workflow_events.listener": "True",
        "workflow_events.source_instance": "listening",
        # Which every process has to read from the command: the scheduler, its tasks, the API server.
        "workflow_events.outbox_url_cmd": f"echo sqlite:///{outbox}",
    }
    with AirflowDeployment(home, dags, config=config) as deployment:
        deployment.start()
        deployment.post(
            "/connections",
            {
                "connection_id": "workflow_events_default",
                "conn_type": "workflow_events",
                "extra": json.dumps(
                    {"bootstrap.servers": embedded_broker.bootstrap_servers, "environment": "db"}
                ),
            },
        )
        deployment.await_dags({"plain_etl", "plain_that_opted_out", "plain_that_waits", "plain_with_secrets"})
        deployment.await_dags({"plain_with_topic_by_parameter"})
        yield Airflow(deployment, embedded_broker)


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_says_once_what_is_on_with_the_outbox_that_a_command_names(
    listening: Airflow, component: str
) -> None:
    if component == "api-server" and not PROVIDERS_HAVE_COMMANDS:
        pytest.skip("Airflow 3.1 asks no provider for its commands")
    home = listening.deployment.home
    log = (listening.deployment.logs / f"{component}.log").read_text(errors="replace")
    [line] = [line for line in log.splitlines() if "workflow events: " in line]
    assert "listener on (no filters); connection workflow_events_default, topic workflow-events" in line
    assert f"outbox sqlite {home}/events/outbox.db; relay in this process" in line
    assert not (home / "workflow_events").exists()


def kinds(events: list[WorkflowEvent]) -> list[tuple[str, str | None]]:
    return [
        (str(event.event_type), (event.payload.data.get("task") or {}).get("task_id")) for event in events
    ]


def test_a_dag_that_knows_nothing_of_events_has_them_all_published(listening: Airflow) -> None:
    run_id, state = listening.run("plain_etl")
    assert state == "failed"
    events = listening.events(run_id, 10)
    assert Counter(kinds(events)) == {
        ("workflow.started", None): 1,
        ("task.started", "extract"): 1,
        ("task.completed", "extract"): 1,
        ("task.started", "optional"): 1,
        ("task.skipped", "optional"): 1,
        ("task.started", "transform"): 2,
        ("task.retrying", "transform"): 1,
        ("task.failed", "transform"): 1,
        ("workflow.failed", None): 1,
    }
    assert len({event.event_id for event in events}) == len(events)
    assert {event.metadata.environment for event in events} == {"db"}
    assert {event.metadata.emitted_by for event in events} == {"listener"}
    [started] = [event for event in events if event.event_type == "workflow.started"]
    [failed] = [event for event in events if event.event_type == "workflow.failed"]
    assert started.payload.data["previous_state"] == "queued"
    assert started.payload.data["started_at"] is not None
    assert failed.payload.data["reason"] == "task_failure"
    assert failed.metadata.tags == ["plain"]
    [retrying] = [event for event in events if event.event_type == "task.retrying"]
    assert retrying.payload.data["error"]["message"] == "the source is away"


def test_a_dag_may_opt_out_by_a_tag(listening: Airflow) -> None:
    out_id, _ = listening.run("plain_that_opted_out")
    run_id, _ = listening.run("plain_etl")
    listening.events(run_id, 10)
    messages = listening.broker.messages(DEFAULT_TOPIC, 0)
    assert not [message for message in messages if out_id.encode() in (message.value() or b"")]


def test_a_run_that_is_marked_by_hand_says_so(listening: Airflow) -> None:
    run_id = f"test__{uuid.uuid4()}"
    listening.deployment.trigger("plain_that_waits", run_id)
    listening.events(run_id, 2)  # the run and its task have started: a task that has not would say nothing
    listening.deployment.request("PATCH", f"/dags/plain_that_waits/dagRuns/{run_id}", {"state": "failed"})
    events = listening.events(run_id, 3)
    [failed] = [event for event in events if event.event_type == "workflow.failed"]
    assert failed.payload.data["reason"] == "marked_manually"


def mark_all(listening: Airflow, dag_id: str) -> str:
    """Run a DAG, mark its tasks and then the run itself by hand, each twice; return the run's id."""
    run_id = f"test__{uuid.uuid4()}"
    listening.deployment.trigger(dag_id, run_id)
    listening.await_states(dag_id, run_id, {"prepare": "success", "wait_for": "up_for_reschedule"})
    for path, marked in [
        ("/taskInstances/wait_for/0", {"new_state": "failed"}),
        ("/taskInstances/wait_for/1", {"new_state": "skipped"}),
        ("/taskInstances/prepare", {"new_state": "failed"}),
        ("/taskInstances/clean", {"new_state": "success"}),
        ("", {"state": "failed"}),
        ("", {"state": "success"}),
        ("", {"state": "failed"}),
    ]:
        listening.deployment.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}{path}", marked)
    return run_id


def on_topic(listening: Airflow, topic: str, run_id: str) -> list[WorkflowEvent]:
    found = map(event_of, listening.broker.messages(topic, 0))
    return [event for event in found if event.workflow_run_id == run_id]


def marked_of(listening: Airflow, topic: str, run_id: str, count: int) -> list[WorkflowEvent]:
    """What was marked by hand in a run, once there is so much of it on a topic."""

    def found() -> list[WorkflowEvent]:
        events = on_topic(listening, topic, run_id)
        marked = [event for event in events if event.payload.data["reason"] == "marked_manually"]
        return marked if len(marked) >= count else []

    return await_condition(found, timeout_seconds=60, what=f"{count} marks of {run_id}")


def test_what_is_marked_by_hand_stays_out_or_goes_to_the_topic_of_its_dag(listening: Airflow) -> None:
    out = [mark_all(listening, dag_id) for dag_id in ("plain_off_by_tag", "plain_off_by_parameter")]
    chosen = [
        mark_all(listening, dag_id) for dag_id in ("plain_with_topic_by_tag", "plain_with_topic_by_parameter")
    ]
    # Below 3.2 Airflow tells nobody of a task that was marked as skipped.
    skips = int(AIRFLOW >= (3, 2))
    for run_id in chosen:
        events = marked_of(listening, "chosen", run_id, 6 + skips)
        assert len({event.event_id for event in events}) == 6 + skips, "each mark is an event of its own"
        assert Counter(kinds(events)) == Counter(
            {
                ("task.failed", "wait_for"): 1,
                ("task.skipped", "wait_for"): skips,
                ("task.failed", "prepare"): 1,
                ("task.completed", "clean"): 1,
                ("workflow.failed", None): 2,
                ("workflow.completed", None): 1,
            }
        )
        assert on_topic(listening, DEFAULT_TOPIC, run_id) == []
    # What the API server had before these is on its way before them.
    for run_id in out:
        assert on_topic(listening, DEFAULT_TOPIC, run_id) + on_topic(listening, "chosen", run_id) == []


def test_no_password_of_a_run_reaches_a_record_a_header_or_the_outbox(listening: Airflow) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    run_id = f"test__{uuid.uuid4()}"
    deployment = listening.deployment
    deployment.trigger("plain_with_secrets", run_id, conf={"password": canary}, note=f"password: {canary}")
    assert deployment.await_run("plain_with_secrets", run_id) == "failed"
    [failed] = [event for event in listening.events(run_id, 4) if event.event_type == "task.failed"]
    error = failed.payload.data["error"]
    assert error["message"] == "refused: postgresql://etl:***@warehouse/sales (password=***)"
    assert failed.metadata.redacted == ["payload.data.error.message", "payload.data.error.stack_trace"]
    for message in listening.broker.messages(DEFAULT_TOPIC, 4):
        assert canary not in f"{message.value()!r} {message.headers()!r}"
    files = list((deployment.home / "events").iterdir())
    assert files
    assert [file.name for file in files if canary.encode() in file.read_bytes()] == []


def test_many_runs_lose_nothing_and_start_once(listening: Airflow) -> None:
    run_ids = [f"many__{uuid.uuid4()}" for _ in range(20)]
    for run_id in run_ids:
        listening.deployment.trigger("plain_empty", run_id)
    for run_id in run_ids:
        assert listening.deployment.await_run("plain_empty", run_id) == "success"
    for run_id in run_ids:
        events = listening.events(run_id, 2)
        assert sorted(kinds(events)) == [("workflow.completed", None), ("workflow.started", None)]
    log = (listening.deployment.logs / "scheduler.log").read_text(errors="replace")
    assert "UNEXPECTED COMMIT" not in log
    assert "DetachedInstanceError" not in log
