"""The asyncio producer keeps the same promises, and never holds up the event loop."""

# ruff: noqa: TID253 - this is about asyncio

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import confluent_kafka
import pytest

from airflow_workflow_events import (
    AsyncWorkflowEventProducer,
    ConfigurationError,
    DeliveryReport,
    EmbeddedBroker,
    EventSerializationError,
    EventTooLargeError,
    KafkaTimeoutError,
    ProducerClosedError,
)
from airflow_workflow_events.errors import KafkaAuthorizationError, KafkaConnectionError, KafkaQueueFullError
from tests.broker import Broker, Consume, embedded, event_of
from tests.events import make_event, make_events

Make = Callable[..., AsyncWorkflowEventProducer]

TOPIC = "faults"
TICK_SECONDS = 0.01
EAGER = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100}


@pytest.fixture
async def producer(broker: Broker, topic: str) -> AsyncIterator[AsyncWorkflowEventProducer]:
    async with AsyncWorkflowEventProducer(broker.bootstrap_servers, topic=topic) as started:
        yield started


@pytest.fixture
def faulty() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, to be disturbed."""
    with EmbeddedBroker(topics={TOPIC: 4}) as broker:
        yield broker


@asynccontextmanager
async def publishing_to(faulty: EmbeddedBroker, **options: Any) -> AsyncIterator[AsyncWorkflowEventProducer]:
    """A producer for a disturbed broker, which gives up at the end what it could not deliver."""
    config = EAGER | options.pop("config", {})
    producer = AsyncWorkflowEventProducer(faulty.bootstrap_servers, topic=TOPIC, config=config, **options)
    await producer.start()
    # So that connecting takes no part in what follows.
    assert await producer.publish_event(make_event(), topic="warm-up")
    # librdkafka frees its place in the queue only after the report: a moment later.
    await producer.flush()
    try:
        yield producer
    finally:
        await producer.close(timeout=0)


@asynccontextmanager
async def heartbeat() -> AsyncIterator[None]:
    """Fail where the loop could not run something else most of the time."""
    ticks = 0

    async def beat() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1

    task = asyncio.create_task(beat())
    started = monotonic()
    try:
        yield
    finally:
        task.cancel()
    possible = (monotonic() - started) / TICK_SECONDS
    assert ticks >= possible / 4, f"{ticks} ticks of {possible:.0f}"


# The same surface


async def test_a_published_event_is_on_the_topic_when_true_is_returned(
    producer: AsyncWorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event()

    assert await producer.publish_event(event) is True

    (message,) = consume(topic, 1)
    assert event_of(message) == event


async def test_the_report_of_a_delivery_says_where_the_message_is(
    producer: AsyncWorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event()

    report = await producer.deliver(event, timeout=20)

    (message,) = consume(topic, 1)
    assert report == DeliveryReport(event.event_id, topic, message.partition(), message.offset())


async def test_many_events_give_one_report_each_in_their_order(
    producer: AsyncWorkflowEventProducer, topic: str, consume: Consume
) -> None:
    events = make_events(300)

    reports = await producer.publish_events(events)

    assert [report.event_id for report in reports] == [event.event_id for event in events]
    assert all(report.delivered for report in reports)
    assert [event_of(message).payload.data["number"] for message in consume(topic, 300)] == list(range(300))


async def test_a_thousand_events_published_at_once_are_all_delivered_once(
    producer: AsyncWorkflowEventProducer, topic: str, consume: Consume
) -> None:
    events = [make_event(workflow_id=f"w{number % 9}") for number in range(1_000)]

    assert all(await asyncio.gather(*(producer.publish_event(event) for event in events)))

    read = Counter(event_of(message).event_id for message in consume(topic, 1_000))
    assert read == Counter(event.event_id for event in events)


async def test_send_gives_a_future_of_the_report(producer: AsyncWorkflowEventProducer, topic: str) -> None:
    event = make_event()

    report = await asyncio.wait_for(producer.send(event), 20)

    assert report.delivered
    assert (report.event_id, report.topic) == (event.event_id, topic)


async def test_after_a_flush_everything_sent_is_on_the_topic(
    producer: AsyncWorkflowEventProducer, topic: str, consume: Consume
) -> None:
    for event in make_events(50):
        producer.send(event)

    await producer.flush()

    assert len(consume(topic, 50)) == 50


async def test_close_delivers_what_was_sent_and_says_so_and_does_nothing_the_second_time(
    producer: AsyncWorkflowEventProducer, topic: str, consume: Consume
) -> None:
    producer.send(make_event())

    assert await producer.close() is True
    assert await producer.close() is True

    assert len(consume(topic, 1)) == 1


USES: dict[str, Callable[[AsyncWorkflowEventProducer], Awaitable[object]]] = {
    "publish_event": lambda producer: producer.publish_event(make_event()),
    "deliver": lambda producer: producer.deliver(make_event()),
    "publish_events": lambda producer: producer.publish_events([make_event()]),
    "send": lambda producer: producer.send(make_event()),
    "flush": lambda producer: producer.flush(),
    "start": lambda producer: producer.start(),
}


@pytest.mark.parametrize("use", USES)
async def test_a_closed_producer_refuses(use: str, producer: AsyncWorkflowEventProducer) -> None:
    await producer.close()

    with pytest.raises(ProducerClosedError):
        await USES[use](producer)


async def test_what_the_synchronous_producer_refuses_is_refused(producer: AsyncWorkflowEventProducer) -> None:
    not_an_event: Any = {}
    large = make_event(payload={"data": {"bulk": "x" * 1_000_000}})
    changed = make_event()
    changed.payload.data["a"] = object()

    with pytest.raises(TypeError):
        await producer.publish_event(not_an_event)
    with pytest.raises(TypeError):
        await producer.publish_events([not_an_event])
    with pytest.raises(EventTooLargeError):
        await producer.publish_event(large)
    with pytest.raises(EventSerializationError):
        producer.send(changed)
    with pytest.raises(ConfigurationError):
        await producer.publish_event(make_event(), topic="a/b")


def test_a_wrong_setting_is_refused_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="acks is '2'"):
        AsyncWorkflowEventProducer("127.0.0.1:1", acks="2")


async def test_an_unreachable_broker_is_noticed_when_the_producer_is_entered() -> None:
    producer = AsyncWorkflowEventProducer("127.0.0.1:1", connect_timeout_ms=500)
    async with heartbeat():
        with pytest.raises(KafkaConnectionError):
            await producer.__aenter__()

    with pytest.raises(ProducerClosedError):
        await producer.publish_event(make_event())
    assert repr(producer) == (
        "<AsyncWorkflowEventProducer of <WorkflowEventProducer 127.0.0.1:1 topic=workflow-events closed>>"
    )


async def test_connect_false_puts_the_proof_off() -> None:
    async with AsyncWorkflowEventProducer("127.0.0.1:1", connect=False):
        pass


# The loop is never held up


SLOW: dict[str, Callable[[AsyncWorkflowEventProducer], Awaitable[object]]] = {
    "publish_event": lambda producer: producer.publish_event(make_event()),
    "many publish_event": lambda producer: asyncio.gather(*map(producer.publish_event, make_events(50))),
    "publish_events": lambda producer: producer.publish_events(make_events(50)),
    "send": lambda producer: producer.send(make_event()),
}


@pytest.mark.parametrize("use", SLOW)
async def test_the_loop_goes_on_while_a_slow_broker_answers(use: str, faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty) as producer:
        faulty.set_round_trip_ms(200)

        async with heartbeat():
            await SLOW[use](producer)


@pytest.mark.parametrize("end", [AsyncWorkflowEventProducer.flush, AsyncWorkflowEventProducer.close])
async def test_the_loop_goes_on_while_what_was_sent_is_delivered_at_last(
    end: Callable[[AsyncWorkflowEventProducer], Awaitable[object]], faulty: EmbeddedBroker
) -> None:
    async with publishing_to(faulty) as producer:
        faulty.set_round_trip_ms(200)
        future = producer.send(make_event())

        async with heartbeat():
            await end(producer)

        assert (await asyncio.wait_for(future, 20)).delivered


async def test_the_loop_goes_on_while_the_clients_queue_is_full(faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty, config={"queue.buffering.max.messages": 3}) as producer:
        faulty.take_down()
        for event in make_events(3):
            producer.send(event)

        async with heartbeat():
            with pytest.raises(KafkaTimeoutError):
                await producer.publish_event(make_event(), timeout=0.4)


# When Kafka says no, nothing, or is gone


async def test_a_failed_delivery_is_false_and_logged_with_the_events_id_and_the_reason(
    faulty: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = make_events(3)
    async with publishing_to(faulty) as producer:
        faulty.fail_produce_requests([confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED])
        assert await producer.publish_event(first) is False
        # By now the client knows, and refuses the event itself.
        assert await producer.publish_event(second) is False
        report = await producer.send(third)

    assert isinstance(report.error, KafkaAuthorizationError)
    for event in (first, second, third):
        assert f"event {event.event_id} was not delivered to {TOPIC}: TOPIC_AUTHORIZATION" in caplog.text


async def test_a_timeout_is_an_error_and_the_event_still_arrives(faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty) as producer:
        faulty.set_round_trip_ms(400)
        event = make_event()

        with pytest.raises(KafkaTimeoutError, match=f"event {event.event_id}"):
            await producer.publish_event(event, timeout=0.1)
        with pytest.raises(KafkaTimeoutError):
            await producer.flush(timeout=0.1)

        await producer.flush(timeout=20)
    faulty.set_round_trip_ms(0)
    assert len(embedded(faulty).messages(TOPIC, 1)) == 1


async def test_a_cancelled_call_ends_at_once_and_harms_nothing(faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty) as producer:
        faulty.set_round_trip_ms(400)
        task = asyncio.create_task(producer.publish_event(make_event()))
        await asyncio.sleep(0)
        started = monotonic()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert monotonic() - started < 0.35
        assert await producer.publish_event(make_event(), timeout=20)
    faulty.set_round_trip_ms(0)
    assert len(embedded(faulty).messages(TOPIC, 2)) == 2


async def test_a_cancelled_future_of_send_harms_nothing(faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty) as producer:
        future = producer.send(make_event())
        future.cancel()

        assert await producer.publish_event(make_event(), timeout=20)
        assert await producer.close()


async def test_an_event_gets_into_the_queue_as_soon_as_there_is_room(faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty, config={"queue.buffering.max.messages": 3}) as producer:
        faulty.take_down()
        waiting = [asyncio.create_task(producer.publish_event(event, timeout=30)) for event in make_events(9)]
        await asyncio.sleep(0)
        faulty.bring_up()

        assert all(await asyncio.gather(*waiting))


async def test_send_does_not_wait_for_room_and_says_so_in_the_report(
    faulty: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing_to(faulty, config={"queue.buffering.max.messages": 1}) as producer:
        faulty.take_down()
        producer.send(make_event())
        event = make_event()

        report = await producer.send(event)

    assert isinstance(report.error, KafkaQueueFullError)
    assert f"event {event.event_id} was not delivered" in caplog.text


async def test_closing_gives_up_what_nobody_takes(
    faulty: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing_to(faulty) as producer:
        faulty.take_down()
        future = producer.send(make_event())

        assert await producer.close(timeout=0.2) is False
        assert not (await asyncio.wait_for(future, 5)).delivered
    assert "undelivered" in caplog.text


def test_a_loop_that_was_closed_before_the_report_came_harms_nothing(
    faulty: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[AsyncWorkflowEventProducer] = []

    async def send_and_leave() -> None:
        producer = AsyncWorkflowEventProducer(faulty.bootstrap_servers, topic=TOPIC)
        assert await producer.publish_event(make_event())
        faulty.set_round_trip_ms(300)
        producer.send(make_event())
        kept.append(producer)

    with caplog.at_level(logging.DEBUG, "airflow_workflow_events"):
        asyncio.run(send_and_leave())
        assert kept[0]._producer.close()
    gc.collect()

    assert "after its event loop was closed" in caplog.text


async def test_many_calls_at_once_keep_their_timeouts(faulty: EmbeddedBroker) -> None:
    async with publishing_to(faulty) as producer:
        assert await producer.publish_event(make_event())
        faulty.set_round_trip_ms(3_000)
        # More than asyncio's own executor has threads, each of which waits for the broker.
        batches = [
            asyncio.create_task(producer.publish_events(make_events(2), timeout=20)) for _ in range(40)
        ]
        await asyncio.sleep(0)
        started = monotonic()
        with pytest.raises(KafkaTimeoutError):
            await producer.flush(timeout=0.2)
        assert monotonic() - started < 2.5, "flush waited for a free thread"
        faulty.set_round_trip_ms(0)
        await asyncio.gather(*batches)


async def test_a_cancelled_start_leaves_no_client_behind(faulty: EmbeddedBroker) -> None:
    faulty.take_down()
    producer = AsyncWorkflowEventProducer(faulty.bootstrap_servers)
    start = asyncio.create_task(producer.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    with pytest.raises(ProducerClosedError):
        await producer.publish_event(make_event())
