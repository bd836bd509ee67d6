"""Where a consumer begins: the oldest event, the next one, or the first since a moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from airflow_workflow_events.errors import ConfigurationError


class StartFrom(StrEnum):
    """Where a partition begins that the consumer's group has committed nothing of."""

    EARLIEST = "earliest"
    """With the oldest event that is there."""
    LATEST = "latest"
    """With the first event written after the partition was assigned."""
    COMMITTED = "committed"
    """Where the group left off; what it has committed nothing of begins with the oldest event."""


Start = StartFrom | str | dt.datetime | dt.timedelta
"""A :class:`StartFrom` or its text, a moment, or how long ago."""


def check_start(start: object, *, in_group: bool) -> StartFrom | dt.datetime | dt.timedelta:
    """Return where to begin, if a consumer can begin there.

    Args:
        start: a :data:`Start`.
        in_group: whether the consumer joins a group.

    Raises:
        ConfigurationError: it is none of the choices, a naive time, a negative duration, or ``"committed"``
            without a group.
    """
    if isinstance(start, dt.datetime):
        if start.tzinfo is None:
            raise ConfigurationError(
                f"start_from is {start.isoformat()}, which has no time zone: use e.g. datetime.now(UTC)"
            )
        return start
    if isinstance(start, dt.timedelta):
        if start < dt.timedelta(0):
            raise ConfigurationError(f"start_from is {start}: say how long ago as a positive timedelta")
        return start
    try:
        found = StartFrom(str(start))
    except ValueError:
        raise ConfigurationError(
            f"start_from is {start!r}: use 'earliest', 'latest', 'committed', a datetime or a timedelta"
        ) from None
    if found is StartFrom.COMMITTED and not in_group:
        raise ConfigurationError("start_from is 'committed', but without a group_id nothing is committed")
    return found


class Beginning(NamedTuple):
    """Where a partition begins.

    Attributes:
        partition: topic, partition and offset.
        not_before_ms: records older than this, in milliseconds since the epoch, are to be passed over until
            the first that is not. Default ``None``: none is.
    """

    partition: TopicPartition
    not_before_ms: int | None = None


def resolve(
    consumer: confluent_kafka.Consumer,
    partitions: Sequence[TopicPartition],
    start: StartFrom | dt.datetime | dt.timedelta,
    timeout_seconds: float,
) -> list[Beginning]:
    """Return where these partitions begin.

    An offset is a number, never "the end": a consumer that is killed before its first event, or whose
    partition moves to another member of its group, would otherwise find another end and miss what came in
    between.

    Args:
        consumer: a consumer of the cluster.
        partitions: topic and partition.
        start: where to begin.
        timeout_seconds: the bound on each answer, in seconds.

    Raises:
        confluent_kafka.KafkaException: the brokers did not answer in time.
    """
    if start in {StartFrom.EARLIEST, StartFrom.COMMITTED}:
        return [Beginning(TopicPartition(one.topic, one.partition, OFFSET_BEGINNING)) for one in partitions]
    if start is StartFrom.LATEST:
        return [_at_end(consumer, one, timeout_seconds) for one in partitions]
    since_ms = _since_ms(start)
    # Asked for first: what is written between the two answers would lie before an end asked for last.
    bounds = [consumer.get_watermark_offsets(one, timeout=timeout_seconds) for one in partitions]
    found = _first_since(consumer, partitions, since_ms, timeout_seconds)
    beginnings = []
    for one, (oldest, end) in zip(found, bounds, strict=True):
        if one.offset >= 0:
            beginnings.append(Beginning(one))
        elif oldest < end and _first_since(consumer, [one], 0, timeout_seconds)[0].offset < 0:
            # It knows of no time at all, as librdkafka's mock cluster: look at each record instead.
            beginnings.append(Beginning(TopicPartition(one.topic, one.partition, oldest), since_ms))
        else:
            beginnings.append(Beginning(TopicPartition(one.topic, one.partition, end)))
    return beginnings


def _since_ms(start: StartFrom | dt.datetime | dt.timedelta) -> int:
    now = dt.datetime.now(dt.UTC)
    moment = now - start if isinstance(start, dt.timedelta) else start
    return max(int(moment.timestamp() * 1000), 0) if isinstance(moment, dt.datetime) else 0


def _first_since(
    consumer: confluent_kafka.Consumer,
    partitions: Sequence[TopicPartition],
    since_ms: int,
    timeout_seconds: float,
) -> list[TopicPartition]:
    asked = [TopicPartition(one.topic, one.partition, since_ms) for one in partitions]
    found = consumer.offsets_for_times(asked, timeout=timeout_seconds)
    for one in found:
        if one.error is not None:
            raise confluent_kafka.KafkaException(one.error)
    return found


def _at_end(
    consumer: confluent_kafka.Consumer, partition: TopicPartition, timeout_seconds: float
) -> Beginning:
    _, end = consumer.get_watermark_offsets(partition, timeout=timeout_seconds)
    return Beginning(TopicPartition(partition.topic, partition.partition, end))
