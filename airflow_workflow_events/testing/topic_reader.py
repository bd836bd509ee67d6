"""What came to one topic, complete: everything that was confirmed before one asks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from airflow_workflow_events.errors import KafkaConnectionError

Place = tuple[str, int]
"""Topic and partition."""

T = TypeVar("T")

#: How long the broker gets to say or hand out what it has, in seconds.
READ_SECONDS = 10.0

# After a failed answer, and while there is no topic yet, there is nothing to wait for but time.
_PAUSE_SECONDS = 0.02
_POLL_SECONDS = 0.1
# ListOffsets answers this "time" with the end of a partition.
_END = -1


class TopicReader:
    """Reads one topic; for one thread at a time.

    Args:
        bootstrap_servers: the broker's addresses.
        topic: the topic; it need not exist yet.
        since: where to begin, by topic and partition; what is not in it begins with its oldest message.
            Default ``None``: with what comes after this was made, on whichever topic.

    Attributes:
        topic: the topic.
        since: where every topic's events begin.

    Raises:
        KafkaConnectionError: the broker does not answer within 10 seconds.
    """

    def __init__(self, bootstrap_servers: str, topic: str, since: Mapping[Place, int] | None = None) -> None:
        self.topic = topic
        self._servers = bootstrap_servers
        self._positions: dict[int, int] = {}
        self._fresh: dict[int, list[Message]] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "airflow-workflow-events-testing",  # nothing is committed under it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": False,
                # The embedded broker answers a request without messages only when this is over.
                "fetch.wait.max.ms": 20,
                # A broker that was down is back at once.
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
            }
        )
        try:
            self.since: Mapping[Place, int] = (
                self.ends(monotonic() + READ_SECONDS) if since is None else since
            )
        except KafkaConnectionError:
            self.close()
            raise

    def close(self) -> None:
        """Give the client up. Calling it again does nothing."""
        self._consumer.close()

    def ends(self, deadline: float, *, topic: str | None = None) -> dict[Place, int]:
        """Return where each partition ends.

        Args:
            deadline: when to give up, in seconds of the monotonic clock.
            topic: of which topic; it need not exist. Default ``None``: of all.

        Raises:
            KafkaConnectionError: the broker has not answered by then.
        """
        # Of all topics, as asking for one makes it where a broker makes topics by itself.
        topics = self._ask(lambda seconds: self._consumer.list_topics(timeout=seconds).topics, deadline)
        asked = [
            TopicPartition(name, partition, _END)
            for name, metadata in topics.items()
            if topic in {None, name}
            for partition in metadata.partitions
        ]
        if not asked:
            return {}
        found = self._ask(lambda seconds: self._consumer.offsets_for_times(asked, timeout=seconds), deadline)
        return {(one.topic, one.partition): one.offset for one in found if one.error is None}

    def catch_up(self, deadline: float) -> list[Message]:
        """Return what came since the last call, up to the moment of this one.

        In the order of each partition; across partitions by time.

        Args:
            deadline: when to give up, in seconds of the monotonic clock.

        Raises:
            KafkaConnectionError: the broker has not handed all of it out by then.
        """
        found = self.ends(deadline, topic=self.topic)
        ends = {partition: end for (_, partition), end in found.items()}
        for partition in ends.keys() - self._positions.keys():
            self._positions[partition] = self.since.get((self.topic, partition), 0)
            self._consumer.incremental_assign(
                [TopicPartition(self.topic, partition, self._positions[partition])]
            )
        while any(self._positions[partition] < end for partition, end in ends.items()):
            if not self.wait(min(deadline - monotonic(), _POLL_SECONDS)) and monotonic() >= deadline:
                raise KafkaConnectionError(self._unanswered())
        fresh, self._fresh = self._fresh, {}
        return list(heapq.merge(*fresh.values(), key=lambda message: message.timestamp()[1]))

    def wait(self, seconds: float) -> bool:
        """Return as soon as there is something new, or after ``seconds``; return whether there was."""
        patience = seconds if self._positions else min(seconds, _PAUSE_SECONDS)
        message = self._consumer.poll(max(patience, 0))
        if message is None:
            return False
        partition, offset, error = message.partition(), message.offset(), message.error()
        if partition is None or offset is None:
            return False
        if error is None:
            self._fresh.setdefault(partition, []).append(message)
            self._positions[partition] = offset + 1
        # Kafka's end may lie behind the last message, where a transaction ended or compaction went over it.
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            self._positions[partition] = max(self._positions.get(partition, 0), offset)
        return error is None

    def _ask(self, question: Callable[[float], T], deadline: float) -> T:
        while True:
            try:
                return question(max(deadline - monotonic(), 0.001))
            except KafkaException as error:
                if monotonic() >= deadline:
                    raise KafkaConnectionError(f"{self._unanswered()} ({error.args[0].str()})") from None
            self._consumer.poll(_PAUSE_SECONDS)

    def _unanswered(self) -> str:
        return (
            f"the broker at {self._servers} did not hand out what is on {self.topic}: "
            "if a test took it down, read what was published when it is up again"
        )
