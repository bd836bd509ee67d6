"""What is marked by hand comes as rows; their DAG and their run have to be looked up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, BaseOperator, Param, setup, task, teardown
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, lazyload

from airflow_workflow_events import WorkflowEvent, listeners, marked_dags, relaying
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.settings import Settings
from tests.broker import Broker
from tests.unit.airflow_side.contexts import DAG_ID, ENDED_AT, LOGICAL_DATE, RUN_ID, STARTED_AT, TRACEPARENT

Published = Callable[..., list[WorkflowEvent]]
_RUN = "Dag Run's state was manually set to `failed`."
_TASK = "TaskInstance's state was manually set to `failed`."
_TASKS = {("prepare", -1), ("load", -1), ("each", 0), ("each", 1), ("clean", -1)}

_OFF = {"tags": ["workflow-events:off"]}, {"params": {"workflow_events": Param({"enabled": False})}}


@pytest.fixture(autouse=True)
def outbox(
    tmp_path: Path, set_options: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Outbox]:
    """The listener is on, in a process like an API server's."""
    set_options(listener="True", outbox_url=f"sqlite:///{tmp_path}/outbox.db")
    monkeypatch.setattr(listeners, "_in_job", False)
    listeners._settings.cache_clear()
    marked_dags.forget()
    found = relaying.outbox_of(Settings.load())
    assert found is not None
    yield found
    listeners._stop_relay()
    listeners._settings.cache_clear()


@pytest.fixture
def session() -> Iterator[Session]:
    """A database of Airflow's, with nothing in it."""
    import_all_models()  # type: ignore[no-untyped-call] # Airflow's
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        yield session
    engine.dispose()


def dag_of(**options: Any) -> DAG:
    """A DAG with every kind of task."""
    with DAG(DAG_ID, schedule=None, **options) as dag:

        @setup
        def prepare() -> None: ...

        @task
        def each(_number: int) -> None: ...

        @teardown
        def clean() -> None: ...

        middle = [BaseOperator(task_id="load", owner="data-platform"), each.expand(_number=[1, 2])]
        prepare() >> middle >> clean()
    return dag


def stored(session: Session, dag: DAG) -> tuple[DagRun, list[TaskInstance]]:
    """Store a DAG and a run of it; return the rows as a session of the API server's reads them."""
    session.add(DagBundleModel(name="dags"))
    version = DagVersion(dag_id=DAG_ID, version_number=1, bundle_name="dags")
    session.add(version)
    session.flush()
    serialised = SerializedDagModel(LazyDeserializedDAG.from_dag(dag))
    serialised.dag_version_id = version.id
    run = DagRun(dag_id=DAG_ID, run_id=RUN_ID, run_type="manual", logical_date=LOGICAL_DATE)
    run.state, run.clear_number = "failed", 0
    run.start_date, run.end_date = STARTED_AT, ENDED_AT
    run.created_dag_version_id, run.context_carrier = version.id, {"traceparent": TRACEPARENT}
    session.add_all([serialised, run])
    for task_id, map_index in sorted(_TASKS):
        ti = TaskInstance(
            serialised.dag.get_task(task_id), dag_version_id=version.id, run_id=RUN_ID, map_index=map_index
        )
        ti.state, ti.try_number, ti.start_date, ti.end_date = "failed", 1, STARTED_AT, ENDED_AT
        session.add(ti)
    session.commit()
    session.expunge_all()
    # As airflow.api.common.mark_tasks queries them.
    return session.scalars(select(DagRun)).one(), list(
        session.scalars(select(TaskInstance).options(lazyload(TaskInstance.dag_run)))
    )


def mark(run: DagRun, tis: list[TaskInstance]) -> None:
    """Call the hooks as the API server does."""
    for ti in tis:
        ti.state = "failed"
        listeners.on_task_instance_failed(ti, _TASK)
        ti.state = "success"
        listeners.on_task_instance_success(ti)
        ti.state = "skipped"
        listeners.on_task_instance_skipped(ti)
    listeners.on_dag_run_failed(run, _RUN)
    listeners.on_dag_run_success(run, _RUN.replace("failed", "success"))


@pytest.mark.parametrize("choice", _OFF, ids=["by tag", "by parameter"])
def test_a_dag_that_opted_out_is_not_published_when_it_is_marked(
    session: Session, outbox: Outbox, choice: dict[str, Any]
) -> None:
    mark(*stored(session, dag_of(**choice)))
    assert outbox.totals().pending == 0


@pytest.mark.parametrize("tag", [True, False], ids=["by tag", "by parameter"])
def test_what_is_marked_goes_to_the_topic_that_its_dag_chose(
    session: Session,
    connection: str,
    embedded_broker: Broker,
    event_topic: str,
    published: Published,
    tag: bool,
) -> None:
    topic = f"{event_topic}.chosen"
    embedded_broker.create_topic(topic)
    chosen: dict[str, Any] = {"params": {"workflow_events": Param({"topic": topic})}}
    mark(*stored(session, dag_of(**({"tags": [f"workflow-events:topic={topic}"]} if tag else chosen))))
    events = published(3 * len(_TASKS) + 2, topic)
    assert embedded_broker.messages(event_topic, 0) == []
    of_tasks = [event.payload.data["task"] for event in events if event.payload.data["task"]]
    assert {(one["task_id"], one["map_index"]) for one in of_tasks} == _TASKS
    assert {event.payload.data["reason"] for event in events} == {"marked_manually"}


def test_a_marked_task_says_of_its_run_and_its_operator_what_its_own_process_would(
    session: Session, connection: str, published: Published
) -> None:
    _, tis = stored(session, dag_of(tags=["sales"]))
    [ti] = [ti for ti in tis if ti.task_id == "load"]
    listeners.on_task_instance_failed(ti, _TASK)
    [event] = published()
    data = event.payload.data
    assert (data["run_type"], data["clear_number"]) == ("manual", 0)
    assert (data["task"]["operator"], data["previous_state"]) == ("BaseOperator", None)
    assert (event.metadata.tags, event.metadata.owner) == (["sales"], "data-platform")
    assert event.metadata.traceparent == TRACEPARENT, "the run's, as the task has none"


def test_looking_the_dag_up_leaves_the_session_as_it_was(session: Session) -> None:
    run, tis = stored(session, dag_of())
    run.state = "success"
    listeners.on_dag_run_success(run, _RUN)
    listeners.on_task_instance_failed(tis[0], _TASK)
    assert list(session.dirty) == [run], "nothing was flushed"


def test_a_scheduler_never_queries_for_the_dag_of_a_row(
    session: Session, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tis = stored(session, dag_of())
    monkeypatch.setattr(listeners, "_in_job", True)
    session.connection().exec_driver_sql("DROP TABLE serialized_dag")
    mark(run, tis)
    assert outbox.totals().pending == 3 * len(_TASKS) + 2


def test_marks_that_repeat_are_told_apart(session: Session, outbox: Outbox) -> None:
    run, _ = stored(session, dag_of())
    for state, hook in [
        ("success", listeners.on_dag_run_success),
        ("failed", listeners.on_dag_run_failed),
        ("success", listeners.on_dag_run_success),
    ]:
        run.state = state
        session.commit()
        hook(run, f"Dag Run's state was manually set to `{state}`.")
    assert run.end_date == ENDED_AT, "Airflow leaves the end as it was"
    assert outbox.totals().pending == 3


def test_a_mark_happened_when_it_was_made_not_when_the_run_ended(
    session: Session, connection: str, published: Published
) -> None:
    run, _ = stored(session, dag_of())
    before = dt.datetime.now(dt.UTC)
    run.state = "success"
    session.commit()
    listeners.on_dag_run_success(run, "Dag Run's state was manually set to `success`.")
    [event] = published()
    assert event.timestamp >= before
    assert event.payload.data["ended_at"] == ENDED_AT.isoformat().replace("+00:00", "Z")


def test_what_the_scheduler_reports_of_a_killed_task_is_no_mark(
    session: Session, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, [ti, *_] = stored(session, dag_of())
    assert ti.dag_run.run_id == RUN_ID, "which the scheduler has loaded"
    monkeypatch.setattr(listeners, "_in_job", True)
    for _ in range(2):
        listeners.on_task_instance_failed(ti, "Executor reported that the task instance finished")
    assert outbox.totals().pending == 1
