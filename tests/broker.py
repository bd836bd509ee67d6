"""A broker to test against, whichever kind it is, and what tests ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AdminClient,
    NewTopic,
)

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent
from airflow_workflow_events.events import decode

PARTITIONS = 4
_POLL_SECONDS = 0.1


class Consume(Protocol):
    """The type of :meth:`Broker.messages`."""

    def __call__(self, topic: str, count: int, timeout_seconds: float = 20) -> list[Message]: ...


@dataclass(frozen=True)
class Broker:
    """A Kafka that answers at ``bootstrap_servers``."""

    bootstrap_servers: str
    kind: Literal["external", "jvm", "embedded"]
    create_topic: Callable[[str], None] = field(repr=False)
    """Makes a topic with four partitions."""

    def messages(self, topic: str, count: int, timeout_seconds: float = 20) -> list[Message]:
        """All messages of a topic, once there are ``count`` of them and every partition is at its end.

        Within a partition they are in order. A topic that does not exist has none.

        Args:
            topic: where to read, from the beginning.
            count: how many to wait for; more than these are returned as well.
            timeout_seconds: the bound, in seconds.

        Raises:
            AssertionError: when the time is up.
        """
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "tests",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        try:
            # Asked for all topics, as asking for one makes it where a broker makes topics by itself.
            if not count and topic not in consumer.list_topics(timeout=timeout_seconds).topics:
                return []
            return _read_to_the_end(consumer, topic, count, time.monotonic() + timeout_seconds)
        finally:
            consumer.close()


def embedded(broker: EmbeddedBroker) -> Broker:
    """Describe an embedded broker that runs."""
    return Broker(broker.bootstrap_servers, "embedded", lambda name: broker.create_topic(name, PARTITIONS))


def real(bootstrap_servers: str, kind: Literal["external", "jvm"]) -> Broker:
    """Describe a real Kafka that runs."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    def create_topic(name: str) -> None:
        admin.create_topics([NewTopic(name, PARTITIONS)], request_timeout=30)[name].result()

    return Broker(bootstrap_servers, kind, create_topic)


def headers_of(message: Message) -> dict[str, bytes]:
    """The headers of a message, all of which have bytes for a value."""
    headers: Any = message.headers() or []
    return dict(headers)


def event_of(message: Message) -> WorkflowEvent:
    """The event a message carries."""
    value: Any = message.value()
    return decode(value, {**headers_of(message)})


def _read_to_the_end(consumer: Consumer, topic: str, count: int, deadline: float) -> list[Message]:
    partitions = range(PARTITIONS)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found: list[Message] = []
    at_end: set[int | None] = set()
    while len(found) < count or len(at_end) < PARTITIONS:
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(found)} of {count} messages on {topic} when the time was up")
        message = consumer.poll(_POLL_SECONDS)
        if message is None:
            continue
        error = message.error()
        if error is None:
            found.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            at_end.add(message.partition())
        elif not error.retriable() and error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(error)
    return found
