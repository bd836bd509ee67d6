"""What becomes of an event: the delivery report, and the errors of librdkafka in this package's words."""

# ruff: noqa: SLF001 - librdkafka's local error codes are constants with a leading underscore

from __future__ import annotations

from typing import NamedTuple

import confluent_kafka

from airflow_workflow_events.errors import (
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaQueueFullError,
    WorkflowEventsError,
)


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
    confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "grant the principal Write and Describe on the topic"
    ),
    confluent_kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        "grant the principal IdempotentWrite on the cluster, or turn enable_idempotence off"
    ),
    confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes or send less",
    confluent_kafka.KafkaError._UNKNOWN_TOPIC: "create the topic, or let the broker create topics by itself",
    confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART: (
        "create the topic, or let the broker create topics by itself"
    ),
}


def translate(error: confluent_kafka.KafkaError, text: str | None = None) -> KafkaError:
    """Return librdkafka's error as one of this package's.

    Args:
        error: librdkafka's error.
        text: its text with secrets taken out. Default: the error's own.
    """
    code = error.code()
    message = f"{error.name()}: {text or error.str()}"
    if advice := _ADVICE.get(code):
        message = f"{message} ({advice})"
    kind = _KINDS.get(code, KafkaError)
    # After a fatal error the client is replaced, and only a missing permission stays.
    replaced = error.fatal() and kind is KafkaError
    retriable = kind.retriable or error.retriable() or replaced or code in _WORTH_ANOTHER_TRY
    return kind(message, name=error.name(), retriable=retriable)
