"""A sensor's trigger at work: it fires once, for the right event, and no sooner than Airflow can bear."""

# ruff: noqa: TID253 - triggers run on an event loop

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from confluent_kafka import Producer

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent, triggers
from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.triggers import WorkflowEventTrigger, as_json
from airflow_workflow_events.watching import WatcherStream
from tests.broker import Broker, embedded
from tests.contract.consuming import publish, put
from tests.unit.airflow_side.connections import Connections

pytestmark = pytest.mark.usefixtures("fresh_hubs")

_SECONDS = 20


@pytest.fixture(autouse=True)
def resume_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``resume_after(seconds)``: when a task may be started again; at once, unless a test says otherwise."""

    def resume_after(seconds: float) -> None:
        monkeypatch.setattr(triggers, "resume_after_seconds", lambda: seconds)

    resume_after(0)
    return resume_after


async def fired(*, trigger_id: int | None = 1, **options: Any) -> list[TriggerEvent]:
    """Everything that a sensor's trigger fires, until it ends. In a triggerer it has an id."""
    given: dict[str, Any] = {"once": True, "start_from": "earliest"}
    trigger = WorkflowEventTrigger(**given | options)
    trigger.trigger_id = trigger_id
    async with asyncio.timeout(_SECONDS):
        return [event async for event in trigger.run()]


async def first(stream: AsyncIterator[TriggerEvent]) -> TriggerEvent:
    async with asyncio.timeout(_SECONDS):
        return await anext(stream)


def json_of(event: WorkflowEvent) -> dict[str, Any]:
    return event.model_dump(mode="json", exclude_none=True)


async def test_it_fires_once_for_the_first_event_that_is_waited_for(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, range(3))
    [event] = publish(embedded_broker, event_topic, [3], workflow_id="orders")
    publish(embedded_broker, event_topic, [4], workflow_id="orders")

    [fire] = await fired(workflow_id="orders", workflow_run_id="run_3")

    assert fire.payload == {"failed": False, "event": json_of(event)}


async def test_it_fires_for_an_event_that_comes_while_it_waits(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    firing = asyncio.ensure_future(fired(workflow_id="orders"))
    await asyncio.to_thread(publish, embedded_broker, event_topic, [0], workflow_id="other")
    await fired(workflow_id="other")  # by way of the consumer that they share
    assert not firing.done()
    [event] = await asyncio.to_thread(publish, embedded_broker, event_topic, [1], workflow_id="orders")

    [fire] = await firing
    assert fire.payload["event"] == json_of(event)


async def test_an_event_of_fail_on_is_fired_as_a_failure(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    [event] = publish(embedded_broker, event_topic, [0], event_type="workflow.failed")

    [fire] = await fired(fail_on="workflow.failed")

    assert fire.payload == {"failed": True, "event": json_of(event)}


async def test_what_is_no_event_is_passed_over(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    poison = (None, b"", b"no JSON", b"\xff", b"[]", b"null", b'{"event_id": 1}', b"x" * 500_000)
    for key in map(str, range(8)):
        put(embedded_broker, event_topic, *poison, key=key)
        put(embedded_broker, event_topic, b"{}", key=key, headers=[("ce_id", b"\xff"), ("ce_type", None)])
    [event] = publish(embedded_broker, event_topic, [0])

    [fire] = await fired()

    assert fire.payload["event"] == json_of(event)


async def test_it_waits_on_the_topic_that_is_named_rather_than_the_connections(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    topic = f"events-{uuid.uuid4()}"
    embedded_broker.create_topic(topic)
    publish(embedded_broker, event_topic, [0])
    [event] = publish(embedded_broker, topic, [1])

    [fire] = await fired(topic=topic)

    assert fire.payload["event"] == json_of(event)


async def test_an_outage_of_the_brokers_is_sat_out(own_broker: EmbeddedBroker) -> None:
    own_broker.take_down()
    firing = asyncio.ensure_future(fired())
    await asyncio.to_thread(_fail_to_publish, own_broker)  # as long as it takes to notice
    assert not firing.done()
    own_broker.bring_up()
    [event] = await asyncio.to_thread(publish, embedded(own_broker), "events", [0])

    [fire] = await firing
    assert fire.payload["event"] == json_of(event)


def _fail_to_publish(broker: EmbeddedBroker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    producer.produce("events", b"{}")
    assert producer.flush(0.5) == 1
    producer.purge()


async def test_a_connection_that_cannot_be_used_is_an_error(connections: Connections) -> None:
    connections.add("unusable", extra={"bootstrap.servers": "localhost:9", "fetch.min.bytes": "many"})

    with pytest.raises(ConfigurationError, match="connection 'unusable'"):
        await fired(workflow_events_conn_id="unusable")


@pytest.mark.parametrize("trigger_id", [None, 1])
async def test_it_gives_up_in_time(
    connection: str, resume_after: Callable[[float], None], trigger_id: int | None
) -> None:
    resume_after(1 if trigger_id else 600)
    began = monotonic()
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.3)

    [fire] = await fired(trigger_id=trigger_id, until=until.isoformat(), end_from_trigger=True)

    assert fire.payload == {"failed": True, "timed_out": True}
    assert 0.3 <= monotonic() - began < _SECONDS
    assert trigger_id is None or monotonic() - began >= 1


async def test_nor_is_its_task_started_again_too_early_for_an_error(
    connections: Connections, resume_after: Callable[[float], None]
) -> None:
    connections.add("unusable", extra={"bootstrap.servers": "localhost:9", "fetch.min.bytes": "many"})
    resume_after(1)
    began = monotonic()

    with pytest.raises(ConfigurationError):
        await fired(workflow_events_conn_id="unusable")

    assert monotonic() - began >= 1


@pytest.mark.parametrize("end_from_trigger", [False, True])
async def test_in_the_process_of_a_test_of_the_dag_its_task_goes_on_at_once(
    connection: str,
    embedded_broker: Broker,
    event_topic: str,
    resume_after: Callable[[float], None],
    end_from_trigger: bool,
) -> None:
    [event] = publish(embedded_broker, event_topic, [0])
    resume_after(600)

    [fire] = await fired(trigger_id=None, end_from_trigger=end_from_trigger)

    assert fire.payload == {"failed": False, "event": json_of(event)}


@pytest.mark.parametrize("event_type", ["workflow.completed", "workflow.failed"])
async def test_a_task_is_not_started_again_before_airflow_knows_that_it_waits(
    connection: str,
    embedded_broker: Broker,
    event_topic: str,
    resume_after: Callable[[float], None],
    event_type: str,
) -> None:
    publish(embedded_broker, event_topic, [0], event_type=event_type)
    resume_after(1.5)
    began = monotonic()

    await fired(fail_on="workflow.failed")

    assert 1.5 <= monotonic() - began < _SECONDS


async def test_who_has_waited_long_enough_is_started_at_once(
    connection: str, embedded_broker: Broker, event_topic: str, resume_after: Callable[[float], None]
) -> None:
    resume_after(1)
    began = monotonic()
    firing = asyncio.ensure_future(fired(workflow_id="orders"))
    publish(embedded_broker, event_topic, [0], workflow_id="other")
    await fired(workflow_id="other")
    assert monotonic() - began >= 1
    resume_after(600)  # is asked for when the waiting begins
    await asyncio.to_thread(publish, embedded_broker, event_topic, [1], workflow_id="orders")

    assert len(await firing) == 1


async def test_a_task_that_ends_where_it_waits_ends_at_once_with_the_event_as_its_xcom(
    connection: str, embedded_broker: Broker, event_topic: str, resume_after: Callable[[float], None]
) -> None:
    resume_after(600)
    [event] = publish(embedded_broker, event_topic, [0])

    [fire] = await fired(end_from_trigger=True, fail_on="workflow.failed")

    assert isinstance(fire, TaskSuccessEvent)
    assert fire.xcoms == {"return_value": json_of(event)}


async def test_a_failure_starts_the_task_again_also_where_it_would_end_where_it_waits(
    connection: str, embedded_broker: Broker, event_topic: str, resume_after: Callable[[float], None]
) -> None:
    resume_after(1)
    publish(embedded_broker, event_topic, [0], event_type="workflow.failed")
    began = monotonic()

    [fire] = await fired(end_from_trigger=True, fail_on="workflow.failed")

    assert not isinstance(fire, TaskSuccessEvent)
    assert fire.payload["failed"]
    assert monotonic() - began >= 1


async def test_a_watchers_trigger_fires_for_each_event_where_nobody_confirms(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    events = publish(embedded_broker, event_topic, range(3))
    stream = WorkflowEventTrigger(start_from="earliest").run()

    fires = [await first(stream) for _ in events]

    assert {fire.payload["event_id"] for fire in fires} == {event.event_id for event in events}
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_shared_stream_fires_for_each_event_that_is_waited_for(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, range(3))
    [event] = publish(embedded_broker, event_topic, [3], workflow_id="orders")
    trigger = WorkflowEventTrigger(workflow_id="orders", start_from="earliest")
    producer = WorkflowEventTrigger.create_shared_stream_producer(trigger.serialize()[1])
    assert isinstance(producer, WatcherStream)

    async def payloads() -> AsyncIterator[Any]:
        async for received, place in stream:
            assert place == (received.topic, received.partition, received.offset)
            assert as_json(received) == json_of(event)
            yield received

    stream = producer.open_stream()
    fires = trigger.filter_shared_stream(payloads())
    assert (await first(fires)).payload == json_of(event)
    await fires.aclose()  # type: ignore[attr-defined]
    await stream.aclose()  # type: ignore[attr-defined]
