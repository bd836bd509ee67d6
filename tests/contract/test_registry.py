"""A producer with a value serializer: values framed for a schema registry, on any Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_workflow_events import (
    AsyncWorkflowEventProducer,
    ConfigurationError,
    EventSerializationError,
    EventTooLargeError,
    WorkflowEventProducer,
)
from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.events import decode, encode
from airflow_workflow_events.events.framing import strip_confluent_frame
from airflow_workflow_events.kafka.registry import RegistryValueSerializer
from tests.broker import Broker, Consume, headers_of
from tests.events import make_event, make_events

CANARY = "canary-7f3a"

Serializer = Callable[[bytes, str], Any]


@pytest.fixture
def serializer() -> RegistryValueSerializer:
    return RegistryValueSerializer({"url": "mock://tests"})


def bytes_of(message: Any) -> bytes:
    value = message.value()
    assert isinstance(value, bytes)
    return value


@pytest.fixture
def producer(
    broker: Broker, topic: str, serializer: RegistryValueSerializer
) -> Iterator[WorkflowEventProducer]:
    with WorkflowEventProducer(
        broker.bootstrap_servers, topic=topic, value_serializer=serializer
    ) as producer:
        yield producer


def test_a_published_event_has_a_framed_value_and_the_same_key_and_headers(
    producer: WorkflowEventProducer, serializer: RegistryValueSerializer, topic: str, consume: Consume
) -> None:
    event = make_event()
    plain = encode(event)

    assert producer.publish_event(event)

    [message] = consume(topic, 1)
    framed = bytes_of(message)
    assert framed == b"\0" + serializer.register(topic).to_bytes(4, "big") + plain.value
    assert message.key() == plain.key
    assert headers_of(message) == dict(plain.headers)
    assert decode(strip_confluent_frame(framed), message.headers()) == event


def test_events_in_batches_and_those_sent_without_waiting_are_framed_too(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    batch, single = make_events(300), make_event()

    assert all(report.delivered for report in producer.publish_events(batch))
    assert producer.send(single).result(timeout=30).delivered

    values = [bytes_of(message) for message in consume(topic, 301)]
    assert [value[:1] for value in values] == [b"\0"] * 301
    assert [decode(strip_confluent_frame(value)) for value in values] == [*batch, single]


async def test_the_asyncio_producer_frames_too(
    broker: Broker, topic: str, serializer: RegistryValueSerializer, consume: Consume
) -> None:
    event = make_event()
    async with AsyncWorkflowEventProducer(
        broker.bootstrap_servers, topic=topic, value_serializer=serializer
    ) as producer:
        assert await producer.publish_event(event)

    [message] = consume(topic, 1)
    assert decode(strip_confluent_frame(bytes_of(message))) == event


def unconnected(serializer: Serializer, **options: Any) -> WorkflowEventProducer:
    return WorkflowEventProducer("127.0.0.1:1", connect=False, value_serializer=serializer, **options)


def test_the_size_limit_holds_for_what_the_serializer_makes() -> None:
    event = make_event()
    limit = encode(event).size_bytes
    with unconnected(lambda value, topic: b"\0" + value, max_event_bytes=limit) as producer:
        with pytest.raises(EventTooLargeError) as raised:
            producer.publish_event(event)
        [report] = producer.publish_events([event])

    assert raised.value.size_bytes == limit + 1
    assert isinstance(report.error, EventTooLargeError)


def fails(value: bytes, topic: str) -> bytes:
    raise RuntimeError(CANARY)


@pytest.mark.parametrize(
    ("serializer", "reason"),
    [(fails, "raised RuntimeError"), (lambda value, topic: value.decode(), "returned a str, not bytes")],
    ids=["raises", "returns text"],
)
def test_a_serializer_that_fails_is_told_with_the_events_id_and_not_with_its_own_words(
    serializer: Serializer, reason: str
) -> None:
    event = make_event()
    with unconnected(serializer) as producer:
        with pytest.raises(EventSerializationError, match=reason) as raised:
            producer.publish_event(event)
        [report] = producer.publish_events([event])

    assert event.event_id in str(raised.value)
    assert CANARY not in str(raised.value)
    assert isinstance(report.error, EventSerializationError)


def test_an_envelope_is_not_framed() -> None:
    with pytest.raises(
        ConfigurationError, match="value_serializer does not go with cloudevents='structured'"
    ):
        unconnected(lambda value, topic: value, cloudevents="structured")


def test_the_events_of_a_batch_do_not_wait_in_turn_for_a_registry_that_does_not_answer(
    serializer: RegistryValueSerializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def never_answer(subject: str, *args: Any, **options: Any) -> Any:
        asked.append(subject)
        raise TimeoutError("late")

    monkeypatch.setattr(serializer.client, "register_schema_full_response", never_answer)
    with unconnected(serializer) as producer:
        reports = producer.publish_events(make_events(300))
        with pytest.raises(KafkaConnectionError):
            producer.publish_event(make_event())

    assert {type(report.error) for report in reports} == {KafkaConnectionError}
    assert asked == ["workflow-events-value"]
