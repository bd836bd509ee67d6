"""Where a consumer begins: the oldest event, the next one, or the first since a moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from time import monotonic, sleep
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka import cooperation

# A partition's leader moves, or has only just been chosen.
_MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
_AGAIN_SECONDS = 0.1
_LONGEST_AGO = dt.timedelta(days=36_525)


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
        if not dt.timedelta(0) <= start <= _LONGEST_AGO:
            raise ConfigurationError(
                f"start_from is {start}: say how long ago as a positive timedelta of up to 100 years"
            )
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


Place = tuple[str, int]
"""Topic and partition."""


def place_of(partition: TopicPartition) -> Place:
    """Return the topic and the partition."""
    return partition.topic, partition.partition


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

    def ask(some: Sequence[TopicPartition], moment_ms: int) -> dict[Place, int]:
        return _offsets_at(consumer, some, moment_ms, timeout_seconds)

    # Asked for first: what is written between the two answers would lie before an end asked for last.
    ends = ask(partitions, OFFSET_END)
    if start is StartFrom.LATEST:
        return [_beginning(one, ends[place_of(one)]) for one in partitions]
    since_ms = _since_ms(start)
    is_ahead = since_ms > _since_ms(dt.timedelta(0))
    found = ask(partitions, since_ms)
    quiet = [one for one in partitions if found[place_of(one)] < 0 and ends[place_of(one)] > 0]
    # Who has records, and none since any moment, knows of no time at all, as librdkafka's mock cluster.
    first = ask(quiet, 0)
    timeless = [one for one in quiet if first[place_of(one)] < 0]
    oldest = ask(timeless, OFFSET_BEGINNING)
    beginnings = []
    for one in partitions:
        place = place_of(one)
        if found[place] >= 0:
            beginnings.append(_beginning(one, found[place]))
        elif oldest.get(place, ends[place]) < ends[place]:
            beginnings.append(_beginning(one, oldest[place], since_ms))  # look at each record instead
        else:
            beginnings.append(_beginning(one, ends[place], since_ms if is_ahead else None))
    return beginnings


def _beginning(partition: TopicPartition, offset: int, not_before_ms: int | None = None) -> Beginning:
    return Beginning(TopicPartition(partition.topic, partition.partition, offset), not_before_ms)


def _since_ms(start: StartFrom | dt.datetime | dt.timedelta) -> int:
    now = dt.datetime.now(dt.UTC)
    moment = now - start if isinstance(start, dt.timedelta) else start
    return max(int(moment.timestamp() * 1000), 0) if isinstance(moment, dt.datetime) else 0


def _offsets_at(
    consumer: confluent_kafka.Consumer,
    partitions: Sequence[TopicPartition],
    moment_ms: int,
    timeout_seconds: float,
) -> dict[Place, int]:
    """Return the offsets of the first records since a moment, or -1 where there is none.

    ``OFFSET_END`` and ``OFFSET_BEGINNING`` are moments, too: Kafka's ListOffsets knows both by these numbers.
    One question serves all partitions of a broker. It may have to wait behind a fetch, which goes through the
    same connection, so asking about each watermark by itself takes long.
    """
    if not partitions:
        return {}
    deadline = monotonic() + timeout_seconds
    while True:
        asked = [TopicPartition(one.topic, one.partition, moment_ms) for one in partitions]
        try:
            return _answer(consumer, asked, max(deadline - monotonic(), _AGAIN_SECONDS))
        except KafkaException as error:
            # librdkafka asks another leader by itself only where it is asked for watermarks.
            if error.args[0].code() not in _MOVING or monotonic() >= deadline:
                raise
            sleep(_AGAIN_SECONDS)


def _answer(
    consumer: confluent_kafka.Consumer, asked: list[TopicPartition], timeout_seconds: float
) -> dict[Place, int]:
    found = cooperation.call(partial(consumer.offsets_for_times, asked, timeout=timeout_seconds))
    for one in found:
        if one.error is not None:
            raise KafkaException(one.error)
    return {place_of(one): one.offset for one in found}
