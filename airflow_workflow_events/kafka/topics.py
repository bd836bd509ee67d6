"""Asking a cluster about a topic without writing to it and without making the broker create it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import monotonic
from typing import Any

import confluent_kafka

from airflow_workflow_events import forks
from airflow_workflow_events.errors import KafkaAuthorizationError, KafkaConnectionError, KafkaError
from airflow_workflow_events.kafka.client_log import CLIENT_LOG
from airflow_workflow_events.kafka.config import check_topic
from airflow_workflow_events.kafka.reports import error_text, translate

# How often librdkafka says whether it has been granted idempotence, in milliseconds.
_LOOK_MS = 20

# The options of a producer that say how to reach the cluster; other kinds of client warn about the rest.
_CONNECTION_OPTIONS = ("bootstrap.servers", "client.dns.lookup", "client.id", "oauth_cb")
_CONNECTION_PREFIXES = (
    "https.",  # the identity provider's certificate
    "sasl.",
    "ssl.",
    "security.",
    "socket.",
    "broker.address",
    "connections.",
    "enable.ssl",
    "enable.sasl",
)


def check_writable(config: Mapping[str, Any], topic: str, *, timeout_seconds: float) -> bool:
    """Prove that a topic exists and may be written to.

    Args:
        config: librdkafka's configuration of a producer.
        topic: the topic.
        timeout_seconds: the bound on each of two answers, in seconds.

    Returns:
        ``True`` where the broker permits writing, or has no authorizer; ``False`` where it does not say, as
        the embedded broker does.

    Raises:
        KafkaError: the topic does not exist; the message says what to do.
        KafkaAuthorizationError: it may not be seen or written to.
        KafkaConnectionError: no answer came in time.
    """
    check_topic(topic)
    connection = connection_options(config)
    try:
        _check_exists(connection, topic, timeout_seconds)
        permitted = _check_permitted(connection, topic, timeout_seconds)
        if config.get("enable.idempotence"):
            _check_idempotent(connection, timeout_seconds)
        return permitted
    except confluent_kafka.KafkaException as error:
        cause = error.args[0]
        raise translate(cause, error_text(cause, config), topic=topic) from None


def connection_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say how to reach the cluster, for a client of another kind."""
    return {
        name: value
        for name, value in config.items()
        if name in _CONNECTION_OPTIONS or name.startswith(_CONNECTION_PREFIXES)
    }


def _check_exists(connection: Mapping[str, Any], topic: str, timeout_seconds: float) -> None:
    # A producer's metadata request for a topic makes the broker create it; a consumer's does not.
    with forks.critical_section():  # librdkafka and SSL set up what all clients share
        consumer = confluent_kafka.Consumer(
            {**connection, "group.id": "airflow-workflow-events.check"}, logger=CLIENT_LOG
        )
    try:
        found = consumer.list_topics(topic, timeout=timeout_seconds).topics[topic]
    finally:
        consumer.close()
    if found.error is None:
        return
    name = found.error.name()
    if found.error.code() == confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaError(
            f"topic {topic} does not exist: create it, or correct the default topic "
            "(a broker that creates topics by itself would do so at the first event)",
            name=name,
        )
    if found.error.code() == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise KafkaAuthorizationError(
            f"not authorised to see topic {topic}: grant the principal Describe and Write on it", name=name
        )
    if found.error.retriable():
        raise KafkaConnectionError(f"topic {topic} has no leader now: {found.error.str()}", name=name)
    raise translate(found.error, topic=topic)


def _check_permitted(connection: Mapping[str, Any], topic: str, timeout_seconds: float) -> bool:
    # Slow to import, and needed by the connection test alone.
    from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

    with forks.critical_section():
        client = AdminClient(dict(connection), logger=CLIENT_LOG)
    answer = client.describe_topics(
        confluent_kafka.TopicCollection([topic]),
        include_authorized_operations=True,
        request_timeout=timeout_seconds,
    )[topic]
    try:
        # None where there is no authorizer.
        allowed = answer.result(timeout=timeout_seconds + 1).authorized_operations
    except TimeoutError:
        return False
    except confluent_kafka.KafkaException as error:
        if error.args[0].code() == confluent_kafka.KafkaError._TIMED_OUT:  # noqa: SLF001 - its public name
            return False  # librdkafka's mock cluster has no controller to ask
        raise
    finally:
        # confluent-kafka keeps an exception in a cycle with its traceback, and so this frame: the client
        # would stay, and go on connecting, until Python's next collection of cycles.
        del answer, client
    if allowed is not None and not {AclOperation.WRITE, AclOperation.ALL} & set(allowed):
        raise KafkaAuthorizationError(
            f"not authorised to write to topic {topic}: grant the principal Write on it",
            name="TOPIC_AUTHORIZATION_FAILED",
        )
    return True


def _check_idempotent(connection: Mapping[str, Any], timeout_seconds: float) -> None:
    """Prove that the broker grants idempotence, which is asked for as soon as a producer has connected.

    Raises:
        KafkaAuthorizationError: it does not.
    """
    states: list[str] = []

    def note(statistics: str) -> None:
        states.append(json.loads(statistics).get("eos", {}).get("idemp_state", ""))

    with forks.critical_section():
        producer = confluent_kafka.Producer(
            {**connection, "enable.idempotence": True, "statistics.interval.ms": _LOOK_MS, "stats_cb": note},
            logger=CLIENT_LOG,
        )
    deadline = monotonic() + timeout_seconds
    try:
        while monotonic() < deadline and states[-1:] != ["Assigned"]:
            producer.poll(_LOOK_MS / 1000)
    except confluent_kafka.KafkaException as error:
        cause = error.args[0]
        if cause.code() != confluent_kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            raise
        raise KafkaAuthorizationError(
            "not authorised to write idempotently, though to write: brokers older than Kafka 2.8 want "
            "IdempotentWrite on the cluster granted as well, or set enable.idempotence to false",
            name=cause.name(),
        ) from None
