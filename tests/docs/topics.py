"""What was written to a broker's topics since a moment."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

_TIMEOUT_SECONDS = 20.0
_POLL_SECONDS = 0.1


class Topics:
    """Reads what is new on any topic of a broker.

    Args:
        bootstrap_servers: the broker's addresses.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "documentation",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        self._read: dict[str, dict[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def mark(self) -> None:
        """Take everything there is now for read."""
        topics = self._consumer.list_topics(timeout=_TIMEOUT_SECONDS).topics
        self._read = {topic: self._ends(topic) for topic in topics}

    def new(self, topic: str) -> list[Message]:
        """What was written to a topic since it was last read or marked, partition by partition, in order.

        Raises:
            AssertionError: it could not be read within 20 seconds.
        """
        starts, ends = self._read.get(topic, {}), self._ends(topic)
        spans = {partition: (starts.get(partition, 0), end) for partition, end in ends.items()}
        self._read[topic] = ends
        expected = sum(end - start for start, end in spans.values())
        self._consumer.assign(
            [TopicPartition(topic, part, start) for part, (start, end) in spans.items() if start < end]
        )
        found: list[Message] = []
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while len(found) < expected:
            assert time.monotonic() < deadline, f"{len(found)} of {expected} messages of {topic} were read"
            message = self._consumer.poll(_POLL_SECONDS)
            if message is None:
                continue
            error = message.error()
            if error is None:
                found.append(message)
            elif not error.retriable():
                raise KafkaException(error)
        self._consumer.unassign()
        return sorted(found, key=_place)

    def _ends(self, topic: str) -> dict[int, int]:
        partitions = self._consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic].partitions
        return {partition: self._end(TopicPartition(topic, partition)) for partition in partitions}

    def _end(self, partition: TopicPartition) -> int:
        offsets = self._consumer.get_watermark_offsets(partition, timeout=_TIMEOUT_SECONDS, cached=False)
        assert offsets is not None
        return offsets[1]


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset
