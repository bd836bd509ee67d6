"""What becomes of an event: the delivery report, and the errors of librdkafka in this package's words."""

# ruff: noqa: SLF001 - librdkafka's local error codes are constants with a leading underscore

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import confluent_kafka

from airflow_workflow_events.errors import (
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaQueueFullError,
    WorkflowEventsError,
)
from airflow_workflow_events.kafka.config import one_line, without_secrets


class DeliveryReport(NamedTuple):
    """The broker's word on one event.

    Attributes:
        event_id: the event's id.
        topic: the topic it was sent to.
        partition: the partition it was written to; ``None`` where it was not, or with ``acks=0``.
        offset: its offset there; ``None`` where it was not written, or with ``acks=0``.
        error: why it was not delivered; ``None`` where it was. A
            :class:`~airflow_workflow_events.errors.KafkaTimeoutError` means that the outcome is unknown.
    """

    event_id: str
    topic: str
    partition: int | None = None
    offset: int | None = None
    error: WorkflowEventsError | None = None

    @property
    def delivered(self) -> bool:
        """Whether the broker confirmed the event."""
        return self.error is None


_KINDS: dict[int, type[KafkaError]] = {
    confluent_kafka.KafkaError._TRANSPORT: KafkaConnectionError,
    confluent_kafka.KafkaError._ALL_BROKERS_DOWN: KafkaConnectionError,
    confluent_kafka.KafkaError._RESOLVE: KafkaConnectionError,
    confluent_kafka.KafkaError._AUTHENTICATION: KafkaAuthenticationError,
    confluent_kafka.KafkaError._SSL: KafkaAuthenticationError,
    confluent_kafka.KafkaError.SASL_AUTHENTICATION_FAILED: KafkaAuthenticationError,
    confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED: KafkaAuthorizationError,
    confluent_kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED: KafkaAuthorizationError,
    confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED: KafkaAuthorizationError,
    confluent_kafka.KafkaError._QUEUE_FULL: KafkaQueueFullError,
}

#: Waiting does not help against these.
HOPELESS = frozenset(
    {
        confluent_kafka.KafkaError._AUTHENTICATION,
        confluent_kafka.KafkaError.SASL_AUTHENTICATION_FAILED,
        confluent_kafka.KafkaError._SSL,
    }
)

# librdkafka gives these up per message once its own retries or the delivery timeout are used up; the same
# event sent again later may well get through.
_WORTH_ANOTHER_TRY = frozenset(
    {
        confluent_kafka.KafkaError._MSG_TIMED_OUT,
        confluent_kafka.KafkaError._TIMED_OUT,
        confluent_kafka.KafkaError._TRANSPORT,
        confluent_kafka.KafkaError.NOT_ENOUGH_REPLICAS,
        confluent_kafka.KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE,
        confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION,
        confluent_kafka.KafkaError.REQUEST_TIMED_OUT,
        confluent_kafka.KafkaError._QUEUE_FULL,
        confluent_kafka.KafkaError._FATAL,
        confluent_kafka.KafkaError._PURGE_QUEUE,
        confluent_kafka.KafkaError._PURGE_INFLIGHT,
    }
)

_ADVICE: dict[int, str] = {
    confluent_kafka.KafkaError._MSG_TIMED_OUT: (
        "no broker confirmed it within delivery_timeout_ms; check that the partition's leader is reachable"
    ),
    # Kafka answers an idempotent producer this way that may write to no topic at all.
    confluent_kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        "grant the principal Write on {topic}; only brokers older than Kafka 2.8 want IdempotentWrite on the "
        "cluster as well, or enable_idempotence turned off"
    ),
    confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "grant the principal Read on {group}, as well as Read and Describe on {topic}"
    ),
    confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes or send less",
    confluent_kafka.KafkaError._UNKNOWN_TOPIC: "create {topic}, or let the broker create topics by itself",
    confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART: (
        "create {topic}, or let the broker create topics by itself"
    ),
}
_TO_WRITE = (
    "grant the principal Write and Describe on {topic}; if it does not exist yet, create it or grant Create"
)
_TO_READ = "grant the principal Read and Describe on {topic}"


def translate(
    error: confluent_kafka.KafkaError,
    text: str | None = None,
    *,
    topic: str | None = None,
    group: str | None = None,
    reads: bool = False,
) -> KafkaError:
    """Return librdkafka's error as one of this package's.

    Args:
        error: librdkafka's error.
        text: its text with secrets taken out. Default: the error's own.
        topic: the topic it is about, for the remedy. Default: not known.
        group: the consumer group it is about, likewise.
        reads: whether the client reads, and needs the grants of readers. Default ``False``: it writes.
    """
    code = error.code()
    message = f"{error.name()}: {one_line(text or error.str())}"
    advice = _ADVICE.get(code)
    if code == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED:
        advice = _TO_READ if reads else _TO_WRITE
    if advice:
        names = {
            "topic": f"topic {topic}" if topic else "the topic",
            "group": f"group {group}" if group else "the consumer group",
        }
        message = f"{message} ({advice.format_map(names)})"
    kind = _KINDS.get(code, KafkaError)
    # After a fatal error the client is replaced, and only a missing permission stays.
    replaced = error.fatal() and kind is KafkaError
    retriable = kind.retriable or error.retriable() or replaced or code in _WORTH_ANOTHER_TRY
    return kind(message, name=error.name(), retriable=retriable)


def error_text(error: confluent_kafka.KafkaError, config: Mapping[str, Any]) -> str:
    """Return an error's text in one line, without the secrets of a client's configuration."""
    return one_line(without_secrets(error.str(), config))
