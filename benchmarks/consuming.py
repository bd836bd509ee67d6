"""Events a second out of a topic, typed, by a process that has one core to itself and its client's threads.

As a program, ``python -m benchmarks.consuming CONTENDER SERVERS EVENTS``, it is one contender.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import confluent_kafka
from pydantic import BaseModel

from airflow_workflow_events import WorkflowEventConsumer, WorkflowEventProducer
from benchmarks import broker, children, events
from benchmarks.events import PARTITIONS

# Not the topic of the other measurements: what some of those write to it is no workflow event.
TOPIC = "benchmark-consumed"

_PUBLISHED_AT_ONCE = 5_000


class Payload(BaseModel):
    """What somebody would write who has no library: the event's shape, checked by pydantic."""

    data: dict[str, Any]


class Metadata(BaseModel):
    environment: str
    version: str
    source_instance: str | None = None
    tags: list[str] | None = None
    owner: str | None = None
    emitted_by: str | None = None


class Event(BaseModel):
    event_id: str
    event_type: str
    source: str
    workflow_id: str
    workflow_run_id: str
    timestamp: dt.datetime
    payload: Payload
    metadata: Metadata


def ours(servers: str) -> Iterator[object]:
    """Iterate over a consumer."""
    return iter(WorkflowEventConsumer(servers, topic=TOPIC, start_from="earliest"))


def raw(servers: str) -> Iterator[object]:
    """Take messages off confluent-kafka, some hundred at a time, and look at their values."""
    return (message.value() for message in _messages(servers))


def confluent_pydantic(servers: str) -> Iterator[object]:
    """confluent-kafka, ``json.loads`` and a model of one's own."""
    return (Event.model_validate(json.loads(message.value() or b"")) for message in _messages(servers))


def kafka_python(servers: str) -> Iterator[object]:
    """kafka-python, ``json.loads`` and a model of one's own."""
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        TOPIC, bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    return (Event.model_validate(json.loads(message.value)) for message in consumer)


CONTENDERS: dict[str, Callable[[str], Iterator[object]]] = {
    "raw": raw,
    "ours": ours,
    "confluent_pydantic": confluent_pydantic,
    "kafka_python": kafka_python,
}


def fill(servers: str, count: int) -> None:
    """Publish events to be consumed."""
    broker.create_topic(servers, TOPIC, PARTITIONS)
    with WorkflowEventProducer(servers, topic=TOPIC, max_in_flight_requests_per_connection=5) as producer:
        batch = events.events(_PUBLISHED_AT_ONCE)
        for _ in range(0, count, len(batch)):
            assert all(report.delivered for report in producer.publish_events(batch))


def measure(servers: str, count: int, rounds: int) -> Iterator[tuple[str, float]]:
    """Yield each contender's seconds per event, in turn."""
    for number in range(rounds):
        names = list(CONTENDERS)
        for name in names[number % 2 :] + names[: number % 2]:
            seconds = children.run("-m", "benchmarks.consuming", name, servers, str(count))
            yield name, seconds / count


def _messages(servers: str) -> Iterator[confluent_kafka.Message]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": "benchmark"})
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    while True:
        yield from consumer.consume(500, 0.1)


def main() -> None:
    name, servers, count = sys.argv[1:]
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # the client's threads inherit it: all of it has one core
    items = CONTENDERS[name](servers)
    next(items)  # the first one takes as long as it takes to connect
    began = time.perf_counter()
    for _ in islice(items, int(count) - 1):
        pass
    print(json.dumps(time.perf_counter() - began))


if __name__ == "__main__":
    main()
