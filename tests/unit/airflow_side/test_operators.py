"""The operator: a task that succeeds only after the broker confirmed its event."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from confluent_kafka import KafkaError as Code
from pydantic import BaseModel, ValidationError

from airflow_workflow_events import EmbeddedBroker, EventType, KafkaError, KafkaTimeoutError, WorkflowEvent
from airflow_workflow_events.errors import ConfigurationError, KafkaConnectionError
from airflow_workflow_events.operators import PublishWorkflowEventOperator
from tests.airflow_names import DagSerialization
from tests.broker import Broker
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import (
    DAG_ID,
    ENDED_AT,
    LOGICAL_DATE,
    RUN_ID,
    TRACEPARENT,
    make_dag,
    make_run,
)
from tests.unit.airflow_side.running import run_task
from tests.waiting import await_condition

Published = Callable[..., list[WorkflowEvent]]


def publishing(**options: Any) -> PublishWorkflowEventOperator:
    """The operator, in a DAG."""
    return PublishWorkflowEventOperator(
        **{"task_id": "publish", "event_type": "orders.loaded", "dag": make_dag(), **options}
    )


@pytest.fixture
def flaky_broker(connections: Connections) -> Iterator[EmbeddedBroker]:
    """A broker of the test's own behind the default connection, which tries again for ever."""
    with EmbeddedBroker(topics={"workflow-events": 1}) as broker:
        connections.add(
            extra={"bootstrap.servers": broker.bootstrap_servers, "config": {"retries": 1_000_000}}
        )
        yield broker


def test_the_task_returns_where_its_event_went(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    report = run_task(publishing(data={"rows": 3}))

    (message,) = embedded_broker.messages(event_topic, 1)
    assert report["topic"] == event_topic
    assert (report["partition"], report["offset"]) == (message.partition(), message.offset())
    assert dict(message.headers() or [])["ce_id"] == report["event_id"].encode()


def test_the_event_is_about_the_tasks_own_dag_and_run_unless_told_otherwise(
    connection: str, published: Published
) -> None:
    run_task(publishing())
    run_task(publishing(workflow_id="billing", workflow_run_id="run-{{ dag_run.clear_number }}"))

    own, other = sorted(published(2), key=lambda event: event.workflow_id, reverse=True)
    assert (own.workflow_id, own.workflow_run_id) == (DAG_ID, RUN_ID)
    assert (other.workflow_id, other.workflow_run_id) == ("billing", "run-0")


def test_the_event_says_who_emitted_it(
    connection: str, published: Published, set_options: Callable[..., None]
) -> None:
    set_options(source_instance="airflow-eu")
    run_task(publishing())

    (event,) = published()
    assert event.source == "airflow"
    assert event.metadata.emitted_by == "operator"
    assert event.metadata.source_instance == "airflow-eu"
    assert event.metadata.tags == ["daily", "sales"]
    assert event.metadata.traceparent == TRACEPARENT
    assert event.payload.data == {}


def test_templates_are_rendered_at_any_depth_and_in_every_field(
    connection: str, published: Published, embedded_broker: Broker, event_topic: str
) -> None:
    embedded_broker.create_topic(f"{event_topic}.manual")
    run_task(
        publishing(
            event_type="orders.{{ params.what }}",
            data={
                "run": "{{ run_id }}",
                "files": [{"name": "orders_{{ ds_nodash }}.csv", "at": ("{{ ti.task_id }}", 7)}],
                "{{ not a key }}": None,
            },
            topic=f"{event_topic}.{{{{ dag_run.run_type.value }}}}",
            environment="env-{{ dag.dag_id }}",
            workflow_events_conn_id="{{ 'workflow_events_default' }}",
            params={"what": "loaded"},
        )
    )

    (event,) = published(1, f"{event_topic}.manual")
    assert event.event_type == "orders.loaded"
    assert event.metadata.environment == f"env-{DAG_ID}"
    assert event.payload.data == {
        "run": RUN_ID,
        "files": [{"name": "orders_20261122.csv", "at": ["publish", 7]}],
        "{{ not a key }}": None,
    }


def test_the_environment_is_the_tasks_else_the_connections_else_the_options(
    connections: Connections,
    embedded_broker: Broker,
    event_topic: str,
    published: Published,
    set_options: Callable[..., None],
) -> None:
    set_options(environment="from-option")
    extra = {"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": event_topic}
    connections.add("without", extra=extra)
    connections.add("within", extra={**extra, "environment": "from-connection"})

    run_task(publishing(workflow_events_conn_id="without"))
    run_task(publishing(workflow_events_conn_id="within"))
    run_task(publishing(workflow_events_conn_id="within", environment="from-task"))

    environments = [event.metadata.environment for event in published(3)]
    assert environments == ["from-option", "from-connection", "from-task"]


def test_names_that_a_dag_renders_to_numbers_are_text(
    connection: str, published: Published, embedded_broker: Broker
) -> None:
    # Airflow makes a number of "{{ ds_nodash }}" where render_template_as_native_obj is set.
    embedded_broker.create_topic("20261122")
    names = ("workflow_id", "workflow_run_id", "topic", "environment")
    dag = make_dag(render_template_as_native_obj=True)
    run_task(publishing(dag=dag, data={"rows": "{{ 3 }}"}, **dict.fromkeys(names, "{{ ds_nodash }}")))

    (event,) = published(1, "20261122")
    assert (event.workflow_id, event.workflow_run_id) == ("20261122", "20261122")
    assert event.metadata.environment == "20261122"
    assert event.payload.data == {"rows": 3}


def test_a_name_rendered_to_nothing_is_the_default(connection: str, published: Published) -> None:
    names = ("workflow_id", "workflow_run_id", "topic", "environment")
    run_task(publishing(**dict.fromkeys(names, "{{ params.get('nothing', '') }}")))

    (event,) = published()
    assert (event.workflow_id, event.workflow_run_id) == (DAG_ID, RUN_ID)
    assert event.metadata.environment == "test"


@pytest.mark.parametrize("timeout", [30, 30.0, dt.timedelta(seconds=30)], ids=repr)
def test_a_timeout_is_a_number_of_seconds_or_a_timedelta(timeout: Any) -> None:
    assert publishing(timeout=timeout).timeout == 30


@pytest.mark.parametrize("timeout", ["30", True, 0, -1, float("nan"), float("inf"), [30]], ids=repr)
def test_any_other_timeout_is_refused_where_the_dag_is_parsed(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"timeout is .*: use a number of seconds above 0"):
        publishing(timeout=timeout)


def test_data_may_be_a_model_or_a_dataclass_and_hold_what_json_can_be_made_of(
    connection: str, published: Published
) -> None:
    class Report(BaseModel):
        region: str
        finished_at: dt.datetime

    @dataclass
    class Totals:
        amount: Decimal
        regions: set[str]

    run_task(publishing(data=Report(region="eu", finished_at=ENDED_AT)))
    run_task(publishing(task_id="totals", data=Totals(Decimal("1.50"), {"eu"})))

    report, totals = sorted(published(2), key=lambda event: "amount" in event.payload.data)
    assert report.payload.data == {"region": "eu", "finished_at": "2026-11-23T02:44:35.750000Z"}
    assert totals.payload.data["regions"] == ["eu"]


def test_data_that_json_cannot_carry_fails_the_task_naming_the_place(connection: str) -> None:
    with pytest.raises(ValidationError, match=r"payload\.data\.rows\[1\]\.price"):
        run_task(publishing(data={"rows": [{"price": 1.0}, {"price": float("nan")}]}))


def test_an_illegal_topic_fails_the_task(connection: str) -> None:
    with pytest.raises(ConfigurationError, match="'not legal' is not a legal Kafka topic name"):
        run_task(publishing(topic="not legal"))


def test_a_delivery_that_the_broker_refuses_fails_the_task(flaky_broker: EmbeddedBroker) -> None:
    flaky_broker.fail_produce_requests([Code.TOPIC_AUTHORIZATION_FAILED])

    with pytest.raises(KafkaError) as caught:
        run_task(publishing())
    assert caught.value.name == "TOPIC_AUTHORIZATION_FAILED"


def test_a_confirmation_that_does_not_come_in_time_fails_the_task_at_that_time(
    flaky_broker: EmbeddedBroker,
) -> None:
    flaky_broker.fail_produce_requests([Code.NOT_ENOUGH_REPLICAS] * 1_000)
    started = time.monotonic()

    with pytest.raises(KafkaTimeoutError):
        run_task(publishing(timeout=0.5))
    # The connection's delivery timeout is two minutes.
    assert time.monotonic() - started < 10


def test_a_broker_that_is_gone_fails_the_task(connections: Connections) -> None:
    connections.add(host="127.0.0.1", port=1, extra={"connect.timeout.ms": 200})

    with pytest.raises(KafkaConnectionError):
        run_task(publishing())


def test_a_killed_task_ends_at_once(flaky_broker: EmbeddedBroker) -> None:
    flaky_broker.fail_produce_requests([Code.NOT_ENOUGH_REPLICAS] * 10_000)
    tasks: list[PublishWorkflowEventOperator] = []
    publish = PublishWorkflowEventOperator.publish

    class Publishing(PublishWorkflowEventOperator):
        def publish(self, context: Any, data: Any) -> dict[str, Any]:
            tasks.append(self)
            return publish(self, context, data)

    def kill() -> None:
        # Airflow calls on_kill in a signal handler, on the thread that executes the task.
        await_condition(lambda: tasks and tasks[0]._producer, timeout_seconds=10, what="the producer")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: tasks[0].on_kill())
    started = time.monotonic()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(KafkaError, match=r"[Pp]urged"):
            run_task(Publishing(task_id="publish", event_type="orders.loaded", dag=make_dag()))
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - started < 10


def test_on_kill_before_the_task_began_does_nothing() -> None:
    publishing().on_kill()


def test_every_try_of_a_task_publishes_under_one_id_and_a_cleared_run_under_another(connection: str) -> None:
    cleared = make_run(clear_number=1, start_date=ENDED_AT)
    requeued = make_run(start_date=ENDED_AT)

    first = run_task(publishing(), try_number=1)["event_id"]
    assert run_task(publishing(), try_number=2)["event_id"] == first
    assert run_task(publishing(), make_run(run_after=LOGICAL_DATE))["event_id"] == first
    others = {
        run_task(publishing(), cleared)["event_id"],
        run_task(publishing(), requeued)["event_id"],
        run_task(publishing(), map_index=0)["event_id"],
        run_task(publishing(), map_index=1)["event_id"],
        run_task(publishing(task_id="publish_again"))["event_id"],
        run_task(publishing(event_type="orders.counted"))["event_id"],
    }
    assert len(others | {first}) == 7


def test_it_maps_over_data(connection: str, published: Published) -> None:
    with DAG(DAG_ID, schedule=None) as dag:
        mapped = PublishWorkflowEventOperator.partial(task_id="publish", event_type="region.loaded").expand(
            data=[{"region": "eu", "run": "{{ run_id }}"}, {"region": "us"}]
        )
    for map_index in range(2):
        run_task(mapped, map_index=map_index)

    events = sorted((event.payload.data for event in published(2)), key=str)
    assert events == [{"region": "eu", "run": RUN_ID}, {"region": "us"}]
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_ids == ["publish"]


def test_it_maps_over_several_parameters(connection: str, published: Published) -> None:
    with DAG(DAG_ID, schedule=None) as dag:
        mapped = PublishWorkflowEventOperator.partial(task_id="publish").expand_kwargs(
            [
                {"event_type": "region.loaded", "environment": "eu"},
                {"event_type": EventType.WORKFLOW_COMPLETED},
            ]
        )
    for map_index in range(2):
        run_task(mapped, map_index=map_index)

    assert sorted((event.event_type, event.metadata.environment) for event in published(2)) == [
        ("region.loaded", "eu"),
        ("workflow.completed", "test"),
    ]
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_ids == ["publish"]


def test_a_dag_with_it_survives_airflows_serialisation() -> None:
    with DAG(DAG_ID, schedule=None) as dag:
        PublishWorkflowEventOperator(
            task_id="publish",
            event_type=EventType.WORKFLOW_COMPLETED,
            data={"run": "{{ run_id }}", "type": EventType.TASK_FAILED, "files": [1, {"a": None}]},
            topic="sales",
            timeout=5,
        )
    serialised = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(serialised)
    task: Any = DagSerialization.from_dict(serialised).get_task("publish")

    assert str(task.event_type) == "workflow.completed"
    assert task.data == {"run": "{{ run_id }}", "type": "task.failed", "files": [1, {"a": None}]}
    assert task.topic == "sales"
    assert task.task_type == "PublishWorkflowEventOperator"


@pytest.mark.parametrize(
    ("listener", "options", "warned"),
    [
        ("True", {"event_type": EventType.WORKFLOW_COMPLETED}, True),
        ("False", {"event_type": EventType.WORKFLOW_COMPLETED}, False),
        ("True", {"event_type": "orders.loaded"}, False),
        ("True", {"event_type": EventType.WORKFLOW_COMPLETED, "workflow_id": "another"}, False),
    ],
    ids=["its own run's end", "with the listener off", "a type of its own", "another workflow's end"],
)
def test_a_task_warns_of_what_the_listener_publishes_as_well(
    connection: str,
    published: Published,
    set_options: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    listener: str,
    options: dict[str, Any],
    warned: bool,
) -> None:
    set_options(listener=listener, outbox_url=f"sqlite:///{tmp_path}/outbox.db")
    run_task(publishing(**options))
    assert ("use a type of your own" in capsys.readouterr().out) == warned
    assert len(published()) == 1
