"""Where the partitions of a consumer begin that nothing is committed of."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from functools import partial

import confluent_kafka
from confluent_kafka import KafkaException, Message, TopicPartition

from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.positions import Beginning, Place, StartFrom, place_of, resolve

# Brokers get this long for one answer about offsets.
_ANSWER_SECONDS = 5.0


class Beginnings:
    """Knows which partitions were there at first, and where each one began.

    Args:
        start: where partitions begin. All of one that was not there at first is new, and is read from its
            beginning, unless this is a time.
    """

    def __init__(self, start: StartFrom | dt.datetime | dt.timedelta) -> None:
        # "How long ago" counts from here, also for a topic that appears later.
        self._start = dt.datetime.now(dt.UTC) - start if isinstance(start, dt.timedelta) else start
        self._known: dict[str, frozenset[int]] = {}  # the partitions each topic had when it was first seen
        self._not_before_ms: dict[Place, int] = {}
        self.begun: dict[Place, int] = {}
        """The offset at which each partition began."""

    def see(self, topic: str, partitions: Iterable[int] = ()) -> None:
        """Take note of a topic's partitions, the first time."""
        self._known.setdefault(topic, frozenset(partitions))

    def has_seen(self, topic: str) -> bool:
        """Whether the brokers have said what partitions the topic has, or that there is none."""
        return topic in self._known

    def is_settled(self, topic: str) -> bool:
        """Whether it is known where each partition begins that the topic had at first."""
        return topic in self._known and all((topic, one) in self.begun for one in self._known[topic])

    def was_absent(self, topic: str) -> bool:
        """Whether the topic did not exist at first."""
        return self._known.get(topic) == frozenset()

    def of(self, consumer: confluent_kafka.Consumer, partitions: Sequence[TopicPartition]) -> list[Beginning]:
        """Return where partitions begin.

        Raises:
            confluent_kafka.KafkaException: the brokers do not say.
        """
        new = [one for one in partitions if self._is_new(one)]
        old = [one for one in partitions if not self._is_new(one)]
        start = self._start if isinstance(self._start, dt.datetime) else StartFrom.EARLIEST
        return [
            *(resolve(consumer, old, self._start, _ANSWER_SECONDS) if old else []),
            *(resolve(consumer, new, start, _ANSWER_SECONDS) if new else []),
        ]

    def begin(self, beginnings: Iterable[Beginning]) -> None:
        """Take note that partitions are read from there."""
        for one in beginnings:
            place = place_of(one.partition)
            self.begun[place] = max(one.partition.offset, 0)
            if one.not_before_ms is not None:
                self._not_before_ms[place] = one.not_before_ms

    def forget(self, places: Iterable[Place]) -> None:
        """Look no more at the age of these partitions' records."""
        for place in places:
            self._not_before_ms.pop(place, None)

    def make_new(self, topic: str) -> None:
        """Take note that a topic was made again: its partitions have not begun, and are all new."""
        self._known[topic] = frozenset()
        gone = [place for place in self.begun if place[0] == topic]
        self.forget(gone)
        for place in gone:
            del self.begun[place]

    @property
    def looks_at_age(self) -> bool:
        """Whether there may be old records: only where the brokers know of no times."""
        return bool(self._not_before_ms)

    def is_old(self, message: Message) -> bool:
        """Whether a record lies before the time to begin with."""
        place = (str(message.topic()), int(message.partition() or 0))
        limit = self._not_before_ms.get(place)
        if limit is None:
            return False
        if message.timestamp()[1] < limit:
            return True
        del self._not_before_ms[place]
        return False

    def _is_new(self, partition: TopicPartition) -> bool:
        known = self._known.get(partition.topic)
        return known is not None and partition.partition not in known


def committed_of(
    consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]
) -> tuple[list[TopicPartition], list[TopicPartition]]:
    """Return where the group left off, and the partitions that it has committed nothing of.

    Raises:
        confluent_kafka.KafkaException: the brokers do not say.
    """
    ask = partial(consumer.committed, partitions, timeout=_ANSWER_SECONDS)
    answers = cooperation.call(ask) if partitions else []
    for one in answers:
        if one.error is not None:
            raise KafkaException(one.error)
    return (
        [one for one in answers if one.offset >= 0],
        [TopicPartition(one.topic, one.partition) for one in answers if one.offset < 0],
    )
