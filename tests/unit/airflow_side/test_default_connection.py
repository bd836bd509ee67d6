"""Whoever names no connection gets that of ``[workflow_events] conn_id``; whoever names one gets that one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.decorators import workflow_event_task
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.provider_info import DEFAULT_CONNECTION
from airflow_workflow_events.relaying import open_destination
from airflow_workflow_events.sensors import WorkflowEventSensor
from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.broker import Broker, event_of
from tests.events import make_event
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import make_dag
from tests.unit.airflow_side.running import run_task


@pytest.fixture(autouse=True)
def _option(set_options: Callable[..., None], connections: Connections, embedded_broker: Broker) -> None:
    """The option names a connection, and nothing else does: ``workflow_events_default`` does not exist."""
    set_options(conn_id="kafka_events")
    connections.add("kafka_events", extra={"bootstrap.servers": embedded_broker.bootstrap_servers})


@pytest.mark.parametrize("unnamed", [{}, {"workflow_events_conn_id": None}, {"workflow_events_conn_id": ""}])
def test_hook_and_trigger_take_the_options_connection(unnamed: dict[str, Any]) -> None:
    assert WorkflowEventHook(**unnamed).workflow_events_conn_id == "kafka_events"
    assert WorkflowEventTrigger(**unnamed).workflow_events_conn_id == "kafka_events"


@pytest.mark.parametrize("unnamed", [{}, {"workflow_events_conn_id": None}, {"workflow_events_conn_id": ""}])
def test_a_task_publishes_through_it(
    unnamed: dict[str, Any], event_topic: str, embedded_broker: Broker
) -> None:
    operator = PublishWorkflowEventOperator(
        task_id="publish", event_type="orders.loaded", topic=event_topic, dag=make_dag(), **unnamed
    )
    run_task(operator)
    [message] = embedded_broker.messages(event_topic, 1)
    assert event_of(message).event_type == "orders.loaded"


def test_a_decorated_task_publishes_through_it(event_topic: str, embedded_broker: Broker) -> None:
    with make_dag():

        @workflow_event_task(event_type="orders.loaded", topic=event_topic)
        def load() -> dict[str, int]:
            return {"rows": 7}

        output: Any = load()
    run_task(output.operator)
    [message] = embedded_broker.messages(event_topic, 1)
    assert event_of(message).payload.data == {"rows": 7}


def test_a_sensor_that_pokes_reads_through_it(event_topic: str, embedded_broker: Broker) -> None:
    event = make_event()
    with WorkflowEventProducer(embedded_broker.bootstrap_servers, topic=event_topic) as producer:
        assert producer.publish_event(event)
    sensor = WorkflowEventSensor(
        task_id="wait",
        workflow_id=event.workflow_id,
        deferrable=False,
        since="2020-01-01T00:00:00Z",
        topic=event_topic,
        timeout=30,
        dag=make_dag(),
    )
    assert run_task(sensor)["event_id"] == event.event_id


def test_the_option_is_read_where_a_trigger_runs_not_where_it_was_stored(
    set_options: Callable[..., None],
) -> None:
    _, stored = WorkflowEventTrigger(workflow_id="orders").serialize()
    set_options(conn_id="another")
    assert WorkflowEventTrigger(**stored).workflow_events_conn_id == "another"


def test_a_trigger_that_names_the_usual_connection_keeps_it_and_its_group() -> None:
    named = WorkflowEventTrigger(workflow_id="orders", workflow_events_conn_id=DEFAULT_CONNECTION)
    again = WorkflowEventTrigger(**named.serialize()[1])
    assert again.workflow_events_conn_id == DEFAULT_CONNECTION
    assert again.effective_group_id == WorkflowEventTrigger(workflow_id="orders").effective_group_id


def test_the_relay_delivers_through_it() -> None:
    destination = open_destination(None)
    destination.close()
