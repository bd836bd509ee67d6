"""Faults of an embedded broker, each as long as its ``with`` block and however that ends."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

import confluent_kafka

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka.embedded import EmbeddedBroker

# More requests than a test makes: the mock cluster takes a list of answers, not "from now on".
_EVERY_REQUEST = 10_000


@contextmanager
def broker_down(broker: EmbeddedBroker) -> Iterator[EmbeddedBroker]:
    """Have the broker refuse and close connections, as if Kafka were gone; it keeps its messages.

    Args:
        broker: the broker. ``published_events`` cannot be read within the block.
    """
    broker.take_down()
    try:
        yield broker
    finally:
        broker.bring_up()


@contextmanager
def slow_broker(broker: EmbeddedBroker, round_trip_ms: int) -> Iterator[EmbeddedBroker]:
    """Have the broker answer late.

    Args:
        broker: the broker.
        round_trip_ms: how long each answer takes, in milliseconds.
    """
    broker.set_round_trip_ms(round_trip_ms)
    try:
        yield broker
    finally:
        broker.set_round_trip_ms(0)


@contextmanager
def refusing_broker(
    broker: EmbeddedBroker, error: str = "TOPIC_AUTHORIZATION_FAILED", *, times: int | None = 1
) -> Iterator[EmbeddedBroker]:
    """Have the broker answer produce requests with an error.

    The client repeats a request by itself where the error is retriable, e.g. ``NOT_LEADER_FOR_PARTITION``;
    each repetition is a request.

    Args:
        broker: the broker.
        error: the error's name, as ``confluent_kafka.KafkaError`` has it. Default
            ``"TOPIC_AUTHORIZATION_FAILED"``, which is final.
        times: how many requests, from the next one on. Default 1. ``None``: all of them.

    Raises:
        ConfigurationError: there is no such error, or ``times`` is less than 1.
    """
    if times is not None and times < 1:
        raise ConfigurationError(f"times is {times}: use 1 or more, or None for every request")
    broker.fail_produce_requests([_code_of(error)] * (times or _EVERY_REQUEST))
    try:
        yield broker
    finally:
        broker.clear_failures()


def _code_of(error: str) -> int:
    # Names with an underscore in front are librdkafka's own, which no broker sends.
    codes = {
        name: code
        for name, code in vars(confluent_kafka.KafkaError).items()
        if name.isupper() and not name.startswith("_") and isinstance(code, int)
    }
    if error not in codes:
        near = difflib.get_close_matches(error, codes, n=3) or ["TOPIC_AUTHORIZATION_FAILED"]
        raise ConfigurationError(f"no broker answers with the error {error!r}: use {' or '.join(near)}")
    return codes[error]
