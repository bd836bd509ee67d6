"""What this package writes the official CloudEvents SDK reads, and the other way round."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    from_kafka_event,
    from_structured_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent

from airflow_workflow_events import CloudEventsMode, WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.events import KafkaRecord, decode, encode, to_json
from tests import golden
from tests.broker import Broker, Consume, headers_of
from tests.events import make_event

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TIME = dt.datetime(2026, 11, 23, 2, 44, 35, 216843, dt.UTC)

EVENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whole second": {"timestamp": TIME.replace(microsecond=0)},
    "beyond ASCII": {
        "event_type": "bestellung.überfällig",
        "source": "zürich ost",
        "workflow_id": "täglich",
        "workflow_run_id": "lauf 7 🎉",
        "payload": {"data": {"größe": ["🎉", None, 0.1, {"a": {}}]}},
    },
    "everything": {
        "severity": "high",
        "metadata": {
            "environment": "prod",
            "source_instance": "eu/west 1",
            "tags": ["a"],
            "traceparent": TRACEPARENT,
        },
    },
}

Read = Callable[[KafkaMessage], BaseCloudEvent]
Write = Callable[[BaseCloudEvent], KafkaMessage]
READERS: dict[CloudEventsMode, Read] = {
    CloudEventsMode.BINARY: from_binary_event,
    CloudEventsMode.STRUCTURED: from_structured_event,
}
WRITERS: dict[CloudEventsMode, Write] = {
    CloudEventsMode.BINARY: to_binary_event,
    CloudEventsMode.STRUCTURED: to_structured_event,
}
both_modes = pytest.mark.parametrize("mode", READERS)
each_event = pytest.mark.parametrize("name", EVENTS)


def sdk_message(record: KafkaRecord) -> KafkaMessage:
    headers = {name: data for name, data in record.headers if isinstance(data, bytes)}
    return KafkaMessage(headers=headers, key=record.key, value=record.value)


def sdk_event(event: WorkflowEvent) -> CloudEvent:
    """The event as somebody would build it with the SDK."""
    return CloudEvent(
        attributes={
            "id": event.event_id,
            "source": "airflow",
            "type": str(event.event_type),
            "time": event.timestamp,
            "subject": event.ordering_key,
            "datacontenttype": "application/json",
            "partitionkey": event.ordering_key,
        },
        data=json.loads(to_json(event)),
    )


def assert_is(read: BaseCloudEvent, event: WorkflowEvent) -> None:
    assert read.get_id() == event.event_id
    assert read.get_type() == str(event.event_type)
    assert read.get_specversion() == "1.0"
    assert read.get_time() == event.timestamp
    assert read.get_subject() == event.ordering_key
    assert read.get_datacontenttype() == "application/json"
    assert read.get_extension("partitionkey") == event.ordering_key
    assert read.get_data() == json.loads(to_json(event))


@both_modes
@each_event
def test_the_sdk_reads_our_events_and_detects_their_mode(mode: CloudEventsMode, name: str) -> None:
    event = make_event(**EVENTS[name])
    message = sdk_message(encode(event, mode))

    assert_is(READERS[mode](message), event)
    assert_is(from_kafka_event(message), event)


@both_modes
@each_event
def test_we_read_the_sdks_events(mode: CloudEventsMode, name: str) -> None:
    event = make_event(**EVENTS[name])

    message = WRITERS[mode](sdk_event(event))

    assert decode(message.value, dict(message.headers)) == event


@both_modes
@each_event
def test_an_event_that_passed_through_the_sdk_is_still_the_same(mode: CloudEventsMode, name: str) -> None:
    event = make_event(**EVENTS[name])

    passed_on = WRITERS[mode](from_kafka_event(sdk_message(encode(event, mode))))

    assert decode(passed_on.value, dict(passed_on.headers)) == event


@pytest.mark.parametrize("name", [name for name in golden.NAMES if golden.headers_of(name)])
def test_the_sdk_reads_the_golden_messages(name: str) -> None:
    headers = {key: str(data).encode() for key, data in golden.headers_of(name).items()}

    read = from_kafka_event(KafkaMessage(headers=headers, key=None, value=golden.value_of(name)))

    assert read.get_id() == decode(golden.value_of(name), golden.headers_of(name)).event_id
    assert read.get_time() == TIME


@both_modes
def test_the_sdk_reads_what_the_producer_put_on_a_topic(
    mode: CloudEventsMode, broker: Broker, topic: str, consume: Consume
) -> None:
    event = make_event(**EVENTS["everything"])
    with WorkflowEventProducer(broker.bootstrap_servers, topic=topic, cloudevents=mode) as producer:
        assert producer.publish_event(event)

    (message,) = consume(topic, 1)

    value = message.value()
    assert isinstance(value, bytes)
    read = from_kafka_event(KafkaMessage(headers=headers_of(message), key=message.key(), value=value))
    assert_is(read, event)
