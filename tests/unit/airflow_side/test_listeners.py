"""The listener builds events from what is loaded, appends them, and never raises."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import AIRFLOW_HOME
from tests.airflow_names import DagSerialization, since_airflow

# isort: split
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, BaseSensorOperator, Param, TaskInstanceState
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker
from sqlalchemy import orm

from airflow_workflow_events import WorkflowEvent, listeners, plugin, relaying
from airflow_workflow_events import metrics as names
from airflow_workflow_events.lifecycle import rows
from airflow_workflow_events.lifecycle.choice import Choice
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.publisher import Publication
from airflow_workflow_events.selection import Selection
from airflow_workflow_events.settings import Settings
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import (
    DAG_ID,
    ENDED_AT,
    LOGICAL_DATE,
    RUN_ID,
    STARTED_AT,
    TRACEPARENT,
    dag_context,
    make_dag,
    task_context,
)
from tests.waiting import await_condition

QUEUED_AT = STARTED_AT - dt.timedelta(seconds=2)
Counts = Counter[tuple[str, str]]
LogOf = Callable[[str], str]
Published = Callable[..., list[WorkflowEvent]]
SetOptions = Callable[..., None]


@pytest.fixture(autouse=True)
def outbox(tmp_path: Path, set_options: SetOptions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """The listener is on, with an outbox and a relay of the test's own."""
    set_options(listener="True", outbox_url=f"sqlite:///{tmp_path}/outbox.db")
    monkeypatch.setattr(relaying, "_spared_until", {})
    listeners._settings.cache_clear()
    found = relaying.outbox_of(Settings.load())
    assert found is not None
    yield found
    listeners._stop_relay()
    listeners._settings.cache_clear()


def row(**fields: Any) -> DagRun:
    """A run as the scheduler has it: a database row."""
    return DagRun(
        **{
            "dag_id": DAG_ID,
            "run_id": RUN_ID,
            "run_type": "manual",
            "logical_date": LOGICAL_DATE,
            "start_date": STARTED_AT,
            "state": "success",
            **fields,
        }
    )


def run_of_context(**fields: Any) -> DagRun:
    """The run of :func:`dag_context`, as a row."""
    found = row(**fields)
    found.clear_number = 0
    found.end_date = ENDED_AT
    return found


def test_a_run_that_starts_is_published_by_the_relays_thread(connection: str, published: Published) -> None:
    listeners.on_dag_run_running(run_of_context(state="running"), "started")
    (event,) = published()
    assert event.event_type == "workflow.started"
    assert event.timestamp == STARTED_AT
    assert event.metadata.environment == "test", "the connection's, which the listener never looks up"
    data = event.payload.data
    assert (data["previous_state"], data["state"], data["ended_at"]) == ("queued", "running", None)


def test_listener_and_callback_make_one_event_of_one_run(outbox: Outbox) -> None:
    outbox.beat("host:1", "host", 1)  # so that the callback leaves it in the outbox
    assert Publication(emitted_by="callback").publish(dag_context())
    listeners.on_dag_run_success(run_of_context(), "success")
    assert outbox.totals().pending == 1


def started_row(**fields: Any) -> DagRun:
    """The row of a run that starts."""
    return run_of_context(**{"state": "running", "queued_at": QUEUED_AT, **fields})


def test_a_start_that_a_scheduler_rolled_back_and_repeats_has_one_id(outbox: Outbox) -> None:
    for seconds in (0, 0.26):
        start_date = STARTED_AT + dt.timedelta(seconds=seconds)
        listeners.on_dag_run_running(started_row(start_date=start_date), "started")
    assert outbox.totals().pending == 1


def test_a_run_that_is_queued_or_cleared_again_starts_under_another_id(outbox: Outbox) -> None:
    listeners.on_dag_run_running(started_row(), "started")
    listeners.on_dag_run_running(started_row(queued_at=QUEUED_AT + dt.timedelta(hours=1)), "started")
    cleared = started_row()
    cleared.clear_number = 1
    listeners.on_dag_run_running(cleared, "started")
    assert outbox.totals().pending == 3


def test_a_runs_event_has_its_trace_and_its_team(connection: str, published: Published) -> None:
    run = started_row()
    run.context_carrier = {"traceparent": TRACEPARENT}
    run._team_name = "sales"  # as the scheduler puts it there
    listeners.on_dag_run_running(run, "started")
    (event,) = published()
    assert (event.metadata.traceparent, event.metadata.team) == (TRACEPARENT, "sales")


@since_airflow(3, 2, "runs have no partition")
def test_a_runs_event_has_its_partition(connection: str, published: Published) -> None:
    listeners.on_dag_run_running(started_row(partition_key="2026-11-22"), "started")
    (event,) = published()
    assert event.payload.data["partition_key"] == "2026-11-22"


def test_a_skipped_task_ended_when_it_was_skipped(connection: str, published: Published) -> None:
    before = dt.datetime.now(dt.UTC)
    listeners.on_task_instance_skipped(task_context(TaskInstanceState.SKIPPED, end_date=None)["ti"])
    listeners.before_stopping(TaskRunnerMarker())
    (event,) = published()
    data = event.payload.data
    assert event.timestamp >= before
    assert dt.datetime.fromisoformat(data["ended_at"]) == event.timestamp
    assert data["duration_seconds"] == (event.timestamp - STARTED_AT).total_seconds()


def test_the_run_of_a_task_that_is_only_tested_is_not_published(outbox: Outbox) -> None:
    run_id = "__airflow_temporary_run_2026-11-22T00:00:00+00:00__"
    listeners.on_task_instance_failed(
        task_context(TaskInstanceState.FAILED, run_id=run_id)["ti"], ValueError("no")
    )
    listeners.on_dag_run_failed(run_of_context(run_id=run_id), "task_failure")
    listeners.before_stopping(TaskRunnerMarker())
    assert outbox.totals().pending == 0


def test_an_attribute_that_is_a_synonym_of_another_is_read() -> None:
    class Row(orm.DeclarativeBase):
        pass

    class Instance(Row):
        __tablename__ = "instance"
        dag_id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
        run_id: orm.Mapped[str]
        region_index: orm.Mapped[int]
        map_index = orm.synonym("region_index")  # as in Airflow 3.4

    assert rows.loaded(Instance(dag_id="d", run_id="r", region_index=2))["map_index"] == 2


def test_a_run_marked_by_hand_says_so(connection: str, published: Published) -> None:
    listeners.on_dag_run_failed(
        run_of_context(state="failed"), "Dag Run's state was manually set to `failed`."
    )
    assert published()[0].payload.data["reason"] == "marked_manually"


@pytest.mark.parametrize(("in_job", "reason"), [(False, "marked_manually"), (True, "timed_out")])
def test_what_ends_a_run_without_a_word_is_told_by_the_process_that_says_so(
    connection: str, published: Published, monkeypatch: pytest.MonkeyPatch, in_job: bool, reason: str
) -> None:
    # So do Airflow's API server below 3.3, of marks, and its scheduler below 3.2, of timeouts.
    monkeypatch.setattr(listeners, "_in_job", in_job)
    listeners.on_dag_run_failed(run_of_context(state="failed"), "")
    assert published()[0].payload.data["reason"] == reason


def test_what_is_not_loaded_is_not_touched(connection: str, published: Published) -> None:
    run = run_of_context()
    touched = []
    original = DagRun.__getattribute__

    def guard(self: DagRun, name: str) -> Any:
        if name in {"dag_model", "task_instances", "dag_run_note", "deadlines", "created_dag_version"}:
            touched.append(name)
        return original(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DagRun, "__getattribute__", guard)
        listeners.on_dag_run_success(run, "success")
    assert len(published()) == 1
    assert touched == []


def test_a_tasks_events_leave_before_its_process_does(
    connection: str, published: Published, counters: Counts
) -> None:
    ti = task_context(TaskInstanceState.RUNNING, end_date=None)["ti"]
    listeners.on_task_instance_running(ti)
    listeners.on_task_instance_failed(
        task_context(TaskInstanceState.UP_FOR_RETRY)["ti"], ValueError("password=hunter22 is wrong")
    )
    assert published(0) == []
    listeners.before_stopping(TaskRunnerMarker())
    started, retrying = published(2)
    assert (started.event_type, retrying.event_type) == ("task.started", "task.retrying")
    assert started.timestamp == STARTED_AT
    assert "hunter22" not in retrying.model_dump_json()
    assert counters[names.ACCEPTED, "listener"] == 2


class Sensor(BaseSensorOperator):
    def poke(self, context: Any) -> bool:
        raise NotImplementedError


def test_a_sensor_that_pokes_again_does_not_start_again(connection: str, published: Published) -> None:
    with DAG("waits", schedule=None):
        frees_slot, keeps_slot = Sensor(task_id="frees", mode="reschedule"), Sensor(task_id="keeps")

    def start(sensor: Sensor, rescheduled: int) -> None:
        ti = task_context(TaskInstanceState.RUNNING, end_date=None, task=sensor)["ti"]
        ti._ti_context_from_server.task_reschedule_count = rescheduled
        listeners.on_task_instance_running(ti)

    start(frees_slot, 0)
    start(frees_slot, 1)
    start(frees_slot, 2)
    start(keeps_slot, 1)  # its DAG was not found at first, so that it has told no start
    listeners.before_stopping(TaskRunnerMarker())
    started = [event.payload.data["task"]["task_id"] for event in published(2)]
    assert started == ["frees", "keeps"]


def test_a_tasks_events_are_attempted_directly_without_an_outbox(
    tmp_path: Path, set_options: SetOptions, connection: str, published: Published
) -> None:
    (tmp_path / "file").touch()
    set_options(outbox_url=f"sqlite:///{tmp_path}/file/outbox.db")
    listeners._settings.cache_clear()
    listeners.on_task_instance_success(task_context()["ti"])
    listeners.before_stopping(TaskRunnerMarker())
    assert published()[0].event_type == "task.completed"


def test_a_task_marked_by_hand_comes_as_a_row(connection: str, published: Published) -> None:
    dag: Any = DagSerialization.from_dict(DagSerialization.to_dict(make_dag()))
    ti: Any = TaskInstance(task=dag.get_task("load"), dag_version_id=None)
    ti.run_id, ti.state, ti.map_index, ti.try_number = RUN_ID, "failed", -1, 1
    listeners.on_task_instance_failed(ti, "TaskInstance's state was manually set to `failed`.")
    (event,) = published()
    assert event.event_type == "task.failed"
    assert event.payload.data["task"]["task_id"] == "load"
    assert "manually" in event.payload.data["error"]["message"]


def test_a_row_without_a_run_fails_nothing_and_is_counted(counters: Counts, log_of: LogOf) -> None:
    listeners.on_dag_run_success(DagRun(), "success")
    assert "on_dag_run_success: no event was published" in log_of("listeners")
    assert counters[names.FAILED, "listener"] == 1


def test_without_kafka_a_hook_only_appends(connections: Connections, outbox: Outbox) -> None:
    connections.add(host="127.0.0.1", port=1)
    for number in range(20):
        listeners.on_dag_run_success(run_of_context(run_id=f"run{number}"), "success")
    assert outbox.totals().pending == 20


def test_a_dag_opts_out_or_chooses_its_topic_by_tag_or_parameter() -> None:
    dags = {
        "tag": DAG("a", schedule=None, tags=["workflow-events:off"]),
        "parameter": DAG("b", schedule=None, params={"workflow_events": Param({"enabled": False})}),
        "topic": DAG("c", schedule=None, tags=["x", "workflow-events:topic=orders"]),
        "topic parameter": DAG("d", schedule=None, params={"workflow_events": Param({"topic": "orders"})}),
        "nothing": make_dag(),
    }
    expected = {
        "tag": Choice(True, None),
        "parameter": Choice(True, None),
        "topic": Choice(False, "orders"),
        "topic parameter": Choice(False, "orders"),
        "nothing": Choice(False, None),
    }
    assert {name: Choice.of(dag) for name, dag in dags.items()} == expected
    serialised = {
        name: DagSerialization.from_dict(DagSerialization.to_dict(dag)) for name, dag in dags.items()
    }
    assert {name: Choice.of(dag) for name, dag in serialised.items()} == expected
    assert Choice.of(None) == Choice(False, None)


def test_filters_are_globs_and_deny_wins(set_options: SetOptions) -> None:
    set_options(
        dags_allow="sales_*, orders",
        dags_deny="sales_tmp*",
        tasks_deny="wait_*",
        event_types="workflow.*,task.failed",
        task_topic="tasks",
    )
    selection = Settings.load().selection
    assert selection.wants("workflow.started", "sales_eu", None)
    assert selection.wants("task.failed", "orders", "load")
    assert not selection.wants("task.started", "orders", "load")
    assert not selection.wants("task.failed", "orders", "wait_for_file")
    assert not selection.wants("workflow.started", "sales_tmp_1", None)
    assert not selection.wants("workflow.started", "other", None)
    assert selection.task_topic == "tasks"
    assert Selection().wants("anything.at_all", "any", "any")


def test_a_dag_that_is_filtered_out_appends_nothing(set_options: SetOptions, outbox: Outbox) -> None:
    set_options(dags_deny=DAG_ID)
    listeners._settings.cache_clear()
    listeners.on_dag_run_success(run_of_context(), "success")
    listeners.on_task_instance_success(task_context()["ti"])
    assert outbox.totals().pending == 0


def test_the_listener_has_an_outbox_even_where_none_is_named(set_options: SetOptions) -> None:
    set_options(outbox_url="")
    assert Settings.load().outbox_url == f"sqlite:///{AIRFLOW_HOME}/workflow_events/outbox.db"
    set_options(listener="False")
    assert Settings.load().outbox_url is None


def test_the_plugin_registers_the_listener_only_where_it_is_on(set_options: SetOptions) -> None:
    assert plugin._listeners() == [listeners]
    set_options(listener="False")
    assert plugin._listeners() == []


def test_a_job_that_starts_has_a_relay_and_one_that_stops_has_delivered(
    connection: str, published: Published, outbox: Outbox
) -> None:
    job = type("Job", (), {})()
    listeners.on_starting(job)
    await_condition(lambda: outbox.relays(60), timeout_seconds=20, what="the relay to be at work")
    listeners.on_dag_run_success(run_of_context(), "success")
    listeners.before_stopping(job)
    assert len(published()) == 1
    assert outbox.relays(60) == []


def waiting_after_the_end(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a process without a scheduler's job says as it ends."""
    caplog.clear()
    listeners.on_dag_run_success(run_of_context(), "success")
    listeners._stop_relay()
    return [message for message in caplog.messages if "wait in the outbox" in message]


def test_a_command_that_ends_says_what_nobody_delivers(
    connections: Connections,
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listeners, "_in_job", False)
    connections.add(extra={"bootstrap.servers": "127.0.0.1:9"})
    [said] = waiting_after_the_end(caplog)
    assert said.startswith(f"1 event(s) wait in the outbox {outbox.database.place}, and no relay is at work")
    outbox.beat("a scheduler's", "host", 1)
    assert waiting_after_the_end(caplog) == []


def test_a_command_that_ends_with_everything_delivered_says_nothing(
    connection: str, outbox: Outbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_in_job", False)
    assert waiting_after_the_end(caplog) == []
    assert outbox.totals().pending == 0


def test_threads_whose_first_events_come_at_once_share_one_relay_which_is_stopped(
    connection: str, outbox: Outbox, published: Published
) -> None:
    """The API server calls listeners from its worker threads."""
    number = 8
    begin = threading.Barrier(number)

    def mark(index: int) -> None:
        begin.wait(60)
        listeners.on_dag_run_success(row(run_id=f"manual__{index}"), "was manually set to success")

    with ThreadPoolExecutor(number) as threads:
        list(threads.map(mark, range(number)))
    assert len({event.event_id for event in published(number)}) == number
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("workflow-events-relay") == 1
    listeners.before_stopping(type("Job", (), {})())
    assert "workflow-events-relay" not in [thread.name for thread in threading.enumerate()]
