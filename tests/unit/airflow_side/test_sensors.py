"""The sensor: what it waits for and since when, how it is deferred, and how it ends."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any, cast
from unittest.mock import Mock

import pytest
from airflow.listeners.listener import get_listener_manager
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk import DAG, Context
from airflow.sdk.api.datamodels._generated import DagRun, DagRunType
from airflow.sdk.bases.operator import TriggerFailureReason

from airflow_workflow_events import EventType, WorkflowEvent
from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.sensors import WorkflowEventSensor
from airflow_workflow_events.testing.listening import listening
from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.airflow_names import DagBag, since_airflow
from tests.events import make_event
from tests.unit.airflow_side.connections import DEFAULT, Connections
from tests.unit.airflow_side.contexts import DAG_ID, RUN_ID, STARTED_AT, make_dag, make_run
from tests.unit.airflow_side.running import run_task

_FAILURE = {"error": {"type": "DiskFull", "message": "no space left"}}


@pytest.fixture(autouse=True)
def _connection(connections: Connections) -> None:
    """A sensor looks its connection up before it is deferred."""
    for name in (DEFAULT, "other", "orders_kafka"):
        connections.add(name, extra={"bootstrap.servers": "localhost:9"})


def waiting(**options: Any) -> WorkflowEventSensor:
    """The sensor, in a DAG."""
    return WorkflowEventSensor(**{"task_id": "wait", "dag": make_dag(), **options})


def deferred(**options: Any) -> TaskDeferred:
    """What Airflow is told when the sensor is deferred."""
    with pytest.raises(TaskDeferred) as told:
        run_task(waiting(**options))
    return told.value


def trigger_of(**options: Any) -> dict[str, Any]:
    """The parameters of the sensor's trigger that Airflow stores."""
    trigger = deferred(**options).trigger
    assert isinstance(trigger, WorkflowEventTrigger)
    stored = trigger.serialize()[1]
    assert dt.datetime.fromisoformat(stored.pop("until")) > dt.datetime.now(dt.UTC)
    return stored


def resumed(outcome: dict[str, Any], **options: Any) -> Any:
    """What becomes of the sensor when its trigger has fired."""
    return waiting(**options).resume_execution("execute_complete", {"event": outcome}, cast("Context", {}))


def found(event: WorkflowEvent, *, failed: bool = False) -> dict[str, Any]:
    """What the trigger fires."""
    return {"failed": failed, "event": event.model_dump(mode="json", exclude_none=True)}


def test_it_is_deferred_until_a_completion_comes() -> None:
    told = deferred()

    assert told.method_name == "execute_complete"
    assert trigger_of() == {
        "event_type": "workflow.completed",
        "start_from": STARTED_AT.isoformat(),
        "once": True,
    }


def test_a_connection_that_does_not_exist_fails_the_task_before_it_is_deferred() -> None:
    with pytest.raises(
        ConfigurationError, match="connection 'no_such' does not exist: create it, or correct"
    ):
        run_task(waiting(workflow_events_conn_id="no_such"))


def test_a_connection_that_cannot_be_used_fails_the_task_before_it_is_deferred(
    connections: Connections,
) -> None:
    connections.add("unusable", extra={"bootstrap.servers": "localhost:9", "fetch.min.bytes": "many"})

    with pytest.raises(ConfigurationError, match="connection 'unusable': "):
        run_task(waiting(workflow_events_conn_id="unusable"))


def test_a_sensor_is_deferred_while_nobody_answers_about_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WorkflowEventHook, "get_consumer", Mock(side_effect=OSError("away")))
    assert isinstance(deferred().trigger, WorkflowEventTrigger)


def test_everything_it_waits_for_is_handed_to_the_trigger() -> None:
    given: dict[str, Any] = {
        "workflow_id": ["orders", "billing_*"],
        "workflow_run_id": "run-1",
        "event_type": EventType.WORKFLOW_STARTED,
        "source": "shop",
        "environment": "prod",
        "data": {"order.country": "DE", "rows": {"$gte": 100}},
        "fail_on": ["workflow.failed", "workflow.skipped"],
        "topic": "elsewhere",
        "workflow_events_conn_id": "other",
        "end_from_trigger": True,
    }

    assert trigger_of(**given) == {
        **given,
        "event_type": "workflow.started",
        "start_from": STARTED_AT.isoformat(),
        "once": True,
    }


@pytest.mark.parametrize("timeout", [90, dt.timedelta(seconds=90)])
def test_the_trigger_gives_up_after_the_sensors_timeout_before_airflow_does(timeout: Any) -> None:
    before = dt.datetime.now(dt.UTC)
    told = deferred(timeout=timeout)

    until = dt.datetime.fromisoformat(cast("Any", told.trigger).until)
    assert dt.timedelta(seconds=90) <= until - before < dt.timedelta(seconds=95)
    assert told.timeout == dt.timedelta(seconds=150)


def test_every_template_is_rendered() -> None:
    stored = trigger_of(
        workflow_id=["{{ dag.dag_id }}", "of_{{ params.name }}"],
        workflow_run_id="{{ run_id }}",
        event_type="{{ params.name }}.loaded",
        source="{{ params.name }}-service",
        environment="{{ params.name }}-prod",
        data={"order.country": "{{ params.name }}", "rows": {"$gte": 100}},
        fail_on="{{ params.name }}.failed",
        since="{{ dag_run.start_date }}",
        topic="{{ params.name }}-events",
        workflow_events_conn_id="{{ params.name }}_kafka",
        params={"name": "orders"},
    )

    assert stored == {
        "workflow_id": [DAG_ID, "of_orders"],
        "workflow_run_id": RUN_ID,
        "event_type": "orders.loaded",
        "source": "orders-service",
        "environment": "orders-prod",
        "data": {"order.country": "orders", "rows": {"$gte": 100}},
        "fail_on": "orders.failed",
        "start_from": STARTED_AT.isoformat(),
        "topic": "orders-events",
        "workflow_events_conn_id": "orders_kafka",
        "once": True,
    }


@pytest.mark.parametrize(
    "name",
    ["workflow_id", "workflow_run_id", "event_type", "source", "environment", "fail_on", "topic", "since"],
)
@pytest.mark.parametrize("nothing", ["", " "])
def test_a_template_that_is_rendered_to_nothing_is_refused(name: str, nothing: str) -> None:
    sensor = waiting(dag=make_dag(params={"nothing": nothing}), **{name: "{{ params.nothing }}"})

    with pytest.raises(ConfigurationError, match=f"{name} "):
        run_task(sensor)


@pytest.mark.parametrize("name", ["workflow_id", "event_type", "topic", "data"])
def test_nor_may_a_native_template_become_none(name: str) -> None:
    native = make_dag(render_template_as_native_obj=True, params={"nothing": None})

    with pytest.raises(ConfigurationError, match=f"{name} was given, but its template was rendered to None"):
        run_task(waiting(dag=native, **{name: "{{ params.nothing }}"}))


def test_what_is_none_stands_for_any() -> None:
    assert trigger_of(event_type=None, fail_on=[], data={}) == {
        "event_type": None,
        "start_from": STARTED_AT.isoformat(),
        "once": True,
    }


def test_a_template_may_be_rendered_to_what_is_no_text() -> None:
    native = make_dag(render_template_as_native_obj=True, params={"number": 7, "many": [7, "eight"]})

    stored = trigger_of(dag=native, workflow_run_id="{{ params.number }}", workflow_id="{{ params.many }}")

    assert (stored["workflow_run_id"], stored["workflow_id"]) == ("7", ["7", "eight"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"since": dt.timedelta(days=800_000)}, "since is 800000 days, 0:00:00: use a timedelta of at most"),
        ({"timeout": 1e12}, "timeout is 1000000000000.0: wait for at most 36,525 days"),
        ({"timeout": float("inf")}, "timeout is inf: wait for at most"),
        ({"timeout": float("nan")}, "timeout is nan: wait for at most"),
        ({"timeout": 10**400}, "timeout is 10+: wait for at most"),
        ({"timeout": dt.timedelta.max}, "timeout is .* days, .*: wait for at most"),
    ],
)
def test_what_leads_out_of_the_calendar_is_refused_where_the_dag_is_parsed(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WorkflowEventSensor(task_id="wait", **parameters)


def test_the_longest_that_is_taken_is_within_the_calendar() -> None:
    longest = dt.timedelta(days=36_525)

    assert deferred(timeout=longest, since=longest).timeout == longest + dt.timedelta(seconds=60)


@pytest.mark.parametrize(
    ("since", "start"),
    [
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1))), "2026-01-02T03:00:00+01:00"),
        ("2026-01-02T03:00:00Z", "2026-01-02T03:00:00+00:00"),
        (" 2026-01-02 03:00+01:00 ", "2026-01-02T03:00:00+01:00"),
        (dt.timedelta(hours=2), (STARTED_AT - dt.timedelta(hours=2)).isoformat()),
        (None, STARTED_AT.isoformat()),
    ],
)
def test_since_is_a_moment_or_its_text_or_how_long_before_the_run(since: Any, start: str) -> None:
    assert trigger_of(since=since)["start_from"] == start


@pytest.mark.parametrize(
    ("since", "message"),
    [
        (
            dt.datetime(2026, 1, 2),  # noqa: DTZ001 - that is it
            "since is 2026-01-02T00:00:00, which has no time zone: use e.g. datetime(..., tzinfo=UTC)",
        ),
        (
            "2026-01-02T00:00:00",
            "since is 2026-01-02T00:00:00, which has no time zone: use e.g. datetime(..., tzinfo=UTC)",
        ),
        (dt.timedelta(hours=-1), "since is -1 day, 23:00:00: say how long before as a positive timedelta"),
        ("yesterday", "since is 'yesterday': use a time in ISO 8601 with a time zone, or a timedelta"),
        (3600, "since is 3600: use a datetime, its ISO text, or a timedelta"),
    ],
)
def test_a_since_that_is_no_moment_is_refused(since: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        run_task(waiting(since=since))
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("run_type", "is_due_before_it_starts"),
    [
        (DagRunType.SCHEDULED, True),
        (DagRunType.ASSET_TRIGGERED, True),
        (DagRunType.MANUAL, False),
        (DagRunType.BACKFILL, False),
        # Another DAG's operator is such a run's cause since Airflow 3.3.
        *((kind, False) for kind in DagRunType if kind.name == "OPERATOR_TRIGGERED"),
    ],
)
def test_a_run_looks_back_to_when_it_was_due_unless_it_is_about_a_past_of_its_own(
    run_type: DagRunType, is_due_before_it_starts: bool
) -> None:
    due = STARTED_AT - dt.timedelta(minutes=10)
    run = make_run(run_type=run_type, run_after=due)

    assert start_of(run) == (due if is_due_before_it_starts else STARTED_AT)
    assert start_of(run, since=dt.timedelta(hours=1)) == start_of(run) - dt.timedelta(hours=1)


def test_a_cleared_run_of_the_schedule_looks_where_it_looked_before() -> None:
    due = STARTED_AT - dt.timedelta(minutes=10)
    run = make_run(run_type=DagRunType.SCHEDULED, run_after=due)
    cleared = make_run(
        run_type=DagRunType.SCHEDULED, run_after=due, clear_number=1, start_date=STARTED_AT + dt.timedelta(1)
    )

    assert start_of(cleared) == start_of(run)


def start_of(run: DagRun, **options: Any) -> dt.datetime:
    """The moment from which the sensor of a run looks."""
    with pytest.raises(TaskDeferred) as told:
        run_task(waiting(**options), run=run)
    return dt.datetime.fromisoformat(cast("Any", told.value.trigger).start_from)


@since_airflow(3, 2, "a run that a task knows has started")
def test_a_run_that_has_not_started_waits_from_now_on() -> None:
    before = dt.datetime.now(dt.UTC)
    start = start_of(make_run(start_date=None))
    assert before <= start <= dt.datetime.now(dt.UTC)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workflow_id": [""]}, "workflow_id"),
        ({"workflow_id": []}, "workflow_id"),
        ({"source": " "}, "source"),
        ({"fail_on": [""]}, "fail_on"),
        ({"data": {"rows": {"$atleast": 1}}}, r"data\['rows'\] has the operator \$atleast"),
        ({"data": [1]}, "data must map"),
        ({"since": dt.timedelta(-1)}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"end_from_trigger": True, "deferrable": False}, "end_from_trigger needs deferrable"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named_where_the_dag_is_parsed(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        waiting(**options)


def test_a_dag_whose_sensor_ends_in_the_triggerer_is_taken_while_a_listener_is_registered() -> None:
    dag = make_dag()
    waiting(dag=dag, end_from_trigger=True)
    WorkflowEventSensor.partial(task_id="mapped", end_from_trigger=True, dag=dag).expand(workflow_id=["a"])
    with listening():
        assert get_listener_manager().has_listeners
        bag = DagBag(os.devnull)
        bag.bag_dag(dag)
    assert DAG_ID in bag.dags


def test_what_is_a_template_is_checked_once_it_is_rendered() -> None:
    sensor = waiting(
        dag=make_dag(params={"name": "orders", "rows": 7, "since": "2026-01-02T00:00:00Z"}),
        workflow_id=["{{ params.name }}"],
        data={"rows": {"$in": "{{ params.rows }}"}},
        since="{{ params.since }}",
    )

    with pytest.raises(ConfigurationError, match=r"data\['rows'\]\.\$in must be a list"):
        run_task(sensor, run=make_run())


def test_it_needs_no_task_of_its_own_to_be_mapped() -> None:
    with DAG("mapped", schedule=None):
        mapped = WorkflowEventSensor.partial(task_id="wait", fail_on="workflow.failed").expand(
            workflow_id=["orders", "billing"]
        )
    assert mapped.operator_class is WorkflowEventSensor


def test_the_event_that_was_waited_for_is_what_the_task_returns() -> None:
    event = make_event(workflow_id="orders", data={"rows": 3})

    assert WorkflowEvent.model_validate(resumed(found(event))) == event


def test_an_event_of_fail_on_fails_the_task_for_good_with_its_error() -> None:
    event = make_event(
        workflow_id="orders", workflow_run_id="7", event_type="workflow.failed", payload={"data": _FAILURE}
    )

    with pytest.raises(AirflowFailException) as failure:
        resumed(found(event, failed=True))
    assert str(failure.value) == (
        f"workflow.failed of orders, run 7 (event {event.event_id}): DiskFull: no space left"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "no reason given"),
        ({"error": None}, "no reason given"),
        ({"error": {}}, "no reason given"),
        ({"error": "disk full"}, "disk full"),
        ({"error": {"type": None, "message": "failed tasks: load"}}, "failed tasks: load"),
        ({"error": {"type": None, "message": None}, "reason": "timed_out"}, "timed_out"),
        ({"reason": "timed_out"}, "timed_out"),
    ],
)
def test_a_failure_says_what_it_knows_of_its_reason(data: dict[str, Any], reason: str) -> None:
    event = make_event(
        workflow_id="orders", workflow_run_id="7", event_type="workflow.failed", payload={"data": data}
    )

    with pytest.raises(AirflowFailException, match=rf"run 7 \(event .+\): {reason}$"):
        resumed(found(event, failed=True))


def test_a_failure_skips_the_task_that_is_to_fail_softly() -> None:
    with pytest.raises(AirflowSkipException):
        resumed(found(make_event(event_type="workflow.failed"), failed=True), soft_fail=True)


@pytest.mark.parametrize(("soft_fail", "end"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_a_timeout_in_the_triggerer_is_a_sensors_timeout(soft_fail: bool, end: type[Exception]) -> None:
    sensor = waiting(soft_fail=soft_fail)

    with pytest.raises(end):
        sensor.resume_execution(
            "__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, cast("Context", {})
        )


@pytest.mark.parametrize(("soft_fail", "end"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_so_is_one_in_the_process_of_a_test_of_the_dag(soft_fail: bool, end: type[Exception]) -> None:
    with pytest.raises(end):
        resumed({"failed": True, "timed_out": True}, soft_fail=soft_fail)


@pytest.mark.parametrize(("soft_fail", "end"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_a_timeout_says_what_kafka_said_last(soft_fail: bool, end: type[Exception]) -> None:
    with pytest.raises(end, match=r"came within .* s \(Kafka said last: group x: Read is missing\)"):
        resumed(
            {"failed": True, "timed_out": True, "trouble": "group x: Read is missing"}, soft_fail=soft_fail
        )


@pytest.mark.parametrize(("text", "operand"), [("100", 100), ("1.5", 1.5), ("2026-01-02", "2026-01-02")])
def test_a_templated_operand_is_of_the_type_that_it_reads_as(text: str, operand: Any) -> None:
    data = trigger_of(data={"rows": {"$gte": f"{{{{ {text!r} }}}}"}, "note": "100"})["data"]

    assert data == {"rows": {"$gte": operand}, "note": "100"}


def test_what_was_replaced_in_the_event_is_in_the_tasks_log(capfd: pytest.CaptureFixture[str]) -> None:
    event = found(make_event())
    event["event"]["metadata"]["replaced"] = ["payload.data.message"]

    resumed(event)

    assert "Airflow cannot store; replaced: payload.data.message" in capfd.readouterr().out
