"""A broker to test against, whichever kind it is, and what tests ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from confluent_kafka import Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AdminClient,
    NewTopic,
)

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent
from airflow_workflow_events.events import decode
from airflow_workflow_events.testing.topic_reader import TopicReader

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
            KafkaConnectionError: when the broker does not answer.
        """
        reader = TopicReader(self.bootstrap_servers, topic, since={})
        deadline = time.monotonic() + timeout_seconds
        found: list[Message] = []
        try:
            while True:
                found += reader.catch_up(deadline)
                if len(found) >= count:
                    return found
                remaining = deadline - time.monotonic()
                assert remaining > 0, f"{len(found)} of {count} messages on {topic} when the time was up"
                reader.wait(min(remaining, _POLL_SECONDS))
        finally:
            reader.close()


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
