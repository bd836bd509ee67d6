"""What the tests of the consumer share: options for short waits, and what was written and read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Producer as RawProducer

from airflow_workflow_events import WorkflowEvent, WorkflowEventConsumer, WorkflowEventProducer
from tests.broker import PARTITIONS, Broker
from tests.events import make_event

#: A member that is gone is noticed soon, and so are new topics, partitions and events.
QUICK: dict[str, Any] = {
    "session.timeout.ms": 3_000,
    "heartbeat.interval.ms": 300,
    "topic.metadata.refresh.interval.ms": 300,
    "fetch.wait.max.ms": 50,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 100,
}
#: Ends an iteration that should find nothing more, or nothing at all.
IDLE_MS = 700
#: Ends an iteration in which something is missing.
PATIENCE_MS = 20_000


def new_group() -> str:
    """A group nobody has used."""
    return f"group-{uuid4()}"


def consumer_of(
    broker: Broker, topic: str | list[str], group_id: str | None = None, **options: Any
) -> WorkflowEventConsumer:
    """A consumer that begins with the oldest event."""
    config = QUICK | options.pop("config", {})
    merged: dict[str, Any] = {
        "start_from": "earliest",
        "consumer_timeout_ms": PATIENCE_MS,
        "topic": topic,
    } | options
    return WorkflowEventConsumer(broker.bootstrap_servers, group_id, config=config, **merged)


def publish(broker: Broker, topic: str, numbers: Iterable[int], **fields: Any) -> list[WorkflowEvent]:
    """Publish an event for each number, each of a run of its own, so that all partitions get some."""
    events = [
        make_event(**({"workflow_run_id": f"run_{number}", "payload": {"data": {"number": number}}} | fields))
        for number in numbers
    ]
    with WorkflowEventProducer(broker.bootstrap_servers, topic=topic) as producer:
        assert all(report.delivered for report in producer.publish_events(events, timeout=30))
    return events


def put(broker: Broker, topic: str, *values: bytes | None, **options: Any) -> None:
    """Write values that are no events, or not only."""
    producer = RawProducer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for value in values:
        producer.produce(topic, value=value, **options)
    assert producer.flush(30) == 0


def take(consumer: WorkflowEventConsumer, count: int) -> list[WorkflowEvent]:
    """The next events; the last of them stays in hand."""
    return list(islice(consumer, count))


def number_of(event: WorkflowEvent) -> int:
    """Its number."""
    number: int = event.payload.data["number"]
    return number


def numbers(events: Iterable[WorkflowEvent]) -> list[int]:
    """The numbers of events, sorted: partitions are in no order."""
    return sorted(map(number_of, events))


def committed(broker: Broker, topic: str, group_id: str) -> int:
    """How many records of a topic a group has committed as read."""
    client = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group_id, "log_level": 0})
    try:
        asked = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        return sum(max(one.offset, 0) for one in client.committed(asked, timeout=20))
    finally:
        client.close()
