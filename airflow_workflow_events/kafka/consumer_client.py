"""One librdkafka consumer: which partitions it has, where they begin, and what of them is handled."""

from __future__ import annotations

import ctypes
import datetime as dt
import logging
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from airflow_workflow_events.errors import (
    ConfigurationError,
    ConsumerClosedError,
    KafkaConnectionError,
    WorkflowEventsError,
)
from airflow_workflow_events.kafka.config import without_secrets
from airflow_workflow_events.kafka.connection import Connection
from airflow_workflow_events.kafka.positions import Beginning, StartFrom, resolve
from airflow_workflow_events.kafka.reports import translate

log = logging.getLogger(__name__)

# A poll returns with the first message; this bounds how late a stop is noticed.
_POLL_SECONDS = 0.1
# Brokers get this long for one answer about offsets, and a rebalance this long for all of them.
_ANSWER_SECONDS = 5.0
_ASSIGN_SECONDS = 60.0
# How often a consumer without a group looks for new partitions; librdkafka does it for groups.
_DISCOVERY_SECONDS = 60.0
_ABSENT_TOPIC_SECONDS = 1.0
_WARNING_PAUSE_SECONDS = 60.0

# Without a permission or a place in the group there is nothing to wait for.
_FINAL = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INVALID_GROUP_ID,
    }
)
_ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - its public name


Place = tuple[str, int]
"""Topic and partition."""


class ConsumerClient:
    """A librdkafka consumer of one or more topics; for one thread at a time, but for :meth:`stop`.

    Args:
        config: librdkafka's configuration, complete and checked.
        topics: what to read.
        start: where partitions begin that the group has committed nothing of.
        in_group: whether to join the group of the configuration. Otherwise every partition is read.

    Raises:
        ConfigurationError: librdkafka refuses the configuration.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        start: StartFrom | dt.datetime | dt.timedelta,
        *,
        in_group: bool,
    ) -> None:
        self.connection = Connection(config)
        self.stopped = False
        self.closed = False
        self._config = dict(config)
        self._topics = list(topics)
        # "How long ago" counts from here, also for a topic that appears later.
        self._start = dt.datetime.now(dt.UTC) - start if isinstance(start, dt.timedelta) else start
        self._in_group = in_group
        self._incremental = "cooperative" in str(config.get("partition.assignment.strategy", ""))
        self._assigned: set[Place] = set()
        self._not_before_ms: dict[Place, int] = {}
        self.begun: dict[Place, int] = {}
        """Without a group: the partitions that are read, and the offset at which each began."""
        self._next_discovery = 0.0
        self._absent_at_first: set[str] = set()
        self._warned: dict[str, float] = {}
        self._assigned_once = False
        self._made_at = monotonic()
        self._early: list[Message] = []
        self._failure: BaseException | None = None
        self._stale = False
        note = weakref.WeakMethod(self.connection.note)  # librdkafka must not keep this object alive
        users = config.get("error_cb")

        def on_error(error: KafkaError) -> None:
            (note() or _ignore)(error)
            if users is not None:
                users(error)

        try:
            self._consumer = confluent_kafka.Consumer(
                {**config, "error_cb": on_error},
                logger=logging.getLogger("airflow_workflow_events.librdkafka"),
            )
            if in_group:
                self._consumer.subscribe(
                    self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
                )
        except (KafkaException, ValueError, TypeError) as error:
            cause = error.args[0] if error.args else error
            text = cause.str() if isinstance(cause, KafkaError) else str(cause)
            raise ConfigurationError(
                f"librdkafka refuses the configuration: {without_secrets(text, config)}"
            ) from None
        _open_clients.add(self)

    def check_connection(self, timeout: float) -> None:
        """Prove within ``timeout`` seconds that a broker answers; without a group, settle where to begin.

        Raises:
            KafkaAuthenticationError: at once, where the broker refuses the credentials or the certificate.
            KafkaConnectionError: no broker answered in time.
        """
        self._check_usable()
        self.connection.prove(
            lambda seconds: self._consumer.cluster_id(timeout=seconds), self._serve_errors, timeout
        )
        if not self._in_group:
            self._discover()

    def stop(self) -> None:
        """Have :meth:`next_batch` return at once, from now on. From any thread, or a signal handler."""
        self.stopped = True

    @property
    def is_waiting_for_partitions(self) -> bool:
        """Whether it has no partition yet, as it takes a group some seconds to share them out."""
        return not self._assigned_once and monotonic() < self._made_at + _ASSIGN_SECONDS

    def wait(self, seconds: float) -> bool:
        """Wait so long, in seconds, or until :meth:`stop`; return whether it was stopped."""
        # An event's lock could be held by the very thread whose signal handler calls stop().
        deadline = monotonic() + seconds
        while not self.stopped and (remaining := deadline - monotonic()) > 0:
            sleep(min(remaining, _POLL_SECONDS))
        return self.stopped

    def fail(self, error: BaseException) -> None:
        """Refuse to go on: what was handed out last is not handled, and going on would leave it out."""
        self._failure = error

    def next_batch(self, size: int, timeout: float | None) -> list[Message]:
        """Return up to ``size`` messages as soon as there is one; empty when stopped or out of time.

        Args:
            size: the most to return.
            timeout: how long to wait, in seconds; ``None`` waits without end.

        Raises:
            ConsumerClosedError: the consumer is closed, or was made before a fork.
            KafkaAuthorizationError: a topic or the group may not be read.
            KafkaError: the client cannot go on.
        """
        self._check_usable()
        try:
            return self._poll(size, None if timeout is None else monotonic() + timeout)
        except WorkflowEventsError as error:
            self.fail(error)
            raise

    def _poll(self, size: int, deadline: float | None) -> list[Message]:
        if self._early:
            early, self._early = self._early, []
            return self._good(early)
        while not self.stopped:
            remaining = _POLL_SECONDS if deadline is None else min(deadline - monotonic(), _POLL_SECONDS)
            if not self._in_group and monotonic() >= self._next_discovery:
                self._discover()
            # Poll returns with the first message, whereas consume would wait until it has them all.
            first = self._consumer.poll(max(remaining, 0))
            if first is not None:
                found = [first]
                if size > 1:
                    found += self._consumer.consume(size - 1, 0)
                if messages := self._good(found):
                    return messages
            elif deadline is not None and monotonic() >= deadline:
                break
        return []

    def offsets_of(self, moment: dt.datetime) -> dict[Place, int]:
        """Return for each partition that is read the offset of its first record since ``moment``.

        Raises:
            KafkaError: the brokers do not say.
        """
        partitions = [TopicPartition(topic, partition) for topic, partition in self.begun]
        try:
            found = resolve(self._consumer, partitions, moment, _ANSWER_SECONDS) if partitions else []
        except KafkaException as error:
            raise translate(error.args[0], self.connection.safe_text(error.args[0])) from None
        return {(one.partition.topic, one.partition.partition): max(one.partition.offset, 0) for one in found}

    def assign_at(self, positions: Mapping[Place, int]) -> None:
        """Without a group: go on reading each partition at an offset, and drop what was fetched before.

        Args:
            positions: for each topic and partition the offset that comes next; where it has none, the
                partition goes on where it began.
        """
        self._consumer.assign(
            [
                TopicPartition(topic, partition, positions.get((topic, partition), began))
                for (topic, partition), began in self.begun.items()
            ]
        )

    def store(self, positions: Mapping[Place, int]) -> None:
        """Say what is handled, so that it is committed in the background, on a rebalance and on closing.

        Args:
            positions: for each topic and partition the offset that comes next.
        """
        if not self._in_group or not positions:
            return
        offsets = [
            TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()
        ]
        try:
            self._consumer.store_offsets(offsets=offsets)
        except KafkaException as error:
            # A partition that has gone to another member meanwhile: that one begins before these events.
            log.debug("not stored: %s", error)

    def commit(self) -> None:
        """Commit what is stored and wait for the broker's word.

        Raises:
            KafkaError: the broker refused, or did not answer.
        """
        self._check_usable()
        if not self._in_group:
            return
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._NO_OFFSET:  # noqa: SLF001 - its public name
                raise translate(error.args[0], self.connection.safe_text(error.args[0])) from None

    def close(self) -> None:
        """Commit what is stored, leave the group and give the client up. Calling it again does nothing."""
        self.stopped = True
        if self.closed or self._stale:
            return
        self.closed = True
        _open_clients.discard(self)
        self._consumer.close()
        log.debug("consumer of %s closed", self.connection.servers)

    def leave_to_parent(self) -> None:
        """In the child of a fork: forget the parent's consumer without touching it."""
        # Destroying it would wait for threads that do not exist here, so its reference count never drops.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._consumer))
        self._stale = True

    def _check_usable(self) -> None:
        if self._stale:
            raise ConsumerClosedError("the consumer was made before a fork: make one in the child")
        if self.closed:
            raise ConsumerClosedError("the consumer is closed: create a new one")
        if self._failure is not None:
            raise self._failure

    def _serve_errors(self) -> None:
        message = self._consumer.poll(0)
        if message is not None:
            self._early.append(message)

    def _good(self, found: Iterable[Message]) -> list[Message]:
        messages = []
        for message in found:
            error = message.error()
            if error is not None:
                self._meet(error, message)
            elif not self._not_before_ms or self._is_recent(message):
                messages.append(message)
        return messages

    def _is_recent(self, message: Message) -> bool:
        place = (str(message.topic()), int(message.partition() or 0))
        limit = self._not_before_ms.get(place)
        if limit is None:
            return True
        if message.timestamp()[1] < limit:
            return False
        del self._not_before_ms[place]
        return True

    def _meet(self, error: KafkaError, message: Message) -> None:
        text = self.connection.safe_text(error)
        code = error.code()
        if error.fatal() or code in _FINAL:
            raise translate(error, text)
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            return
        if code in _ABSENT:
            self._warn(f"topic {message.topic()} does not exist yet; its events are read once it does")
        elif code == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001 - its public name
            self._warn(
                "handling took longer than max_poll_interval_ms, so the group gave the partitions away; "
                "what was in hand is delivered again: raise max_poll_interval_ms"
            )
        else:
            self._warn(f"the Kafka client goes on after: {text}")

    def _warn(self, text: str) -> None:
        """Log a warning, but the same one once a minute."""
        now = monotonic()
        if now >= self._warned.get(text, 0.0):
            self._warned[text] = now + _WARNING_PAUSE_SECONDS
            log.warning("%s", text)

    def _discover(self) -> None:
        """Assign the partitions that are not assigned yet; without a group nobody else does."""
        self._next_discovery = monotonic() + _DISCOVERY_SECONDS
        added: list[Beginning] = []
        first_time = not self._assigned
        try:
            for topic in self._topics:
                added += self._new_partitions(topic, first_time=first_time)
        except KafkaException as error:
            self._next_discovery = monotonic() + _ABSENT_TOPIC_SECONDS
            self._warn(f"the brokers do not say where to begin: {self.connection.safe_text(error.args[0])}")
            return
        if added:
            self._assigned_once = True
            self._begin(added)
            self._consumer.incremental_assign([one.partition for one in added])

    def _new_partitions(self, topic: str, *, first_time: bool) -> list[Beginning]:
        found = self._consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
        if found.error is not None:
            if found.error.code() not in _ABSENT:
                if found.error.code() in _FINAL:
                    raise translate(found.error, self.connection.safe_text(found.error))
                raise KafkaException(found.error)
            self._absent_at_first.add(topic)
            self._next_discovery = monotonic() + _ABSENT_TOPIC_SECONDS
            self._warn(f"topic {topic} does not exist yet; its events are read once it does")
            return []
        new = [
            TopicPartition(topic, partition)
            for partition in sorted(found.partitions)
            if (topic, partition) not in self._assigned
        ]
        # All of a partition that was not there before is new.
        known = first_time and topic not in self._absent_at_first
        start = self._start if known or isinstance(self._start, dt.datetime) else StartFrom.EARLIEST
        return resolve(self._consumer, new, start, _ANSWER_SECONDS) if new else []

    def _begin(self, beginnings: Iterable[Beginning]) -> None:
        for one in beginnings:
            place = (one.partition.topic, one.partition.partition)
            self._assigned.add(place)
            self.begun[place] = max(one.partition.offset, 0)
            if one.not_before_ms is not None:
                self._not_before_ms[place] = one.not_before_ms

    def _on_assign(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        deadline = monotonic() + _ASSIGN_SECONDS
        while True:
            try:
                committed, fresh = self._beginnings(consumer, partitions)
                break
            except KafkaException as error:
                cause = error.args[0]
                text = self.connection.safe_text(cause)
                if cause.code() in _FINAL:
                    raise translate(cause, text) from None
                if monotonic() >= deadline or self.stopped:
                    consumer.unassign()
                    raise KafkaConnectionError(
                        f"the brokers do not say where the group left off: {text}", name=cause.name()
                    ) from None
        self._assigned_once = True
        found = committed + [one.partition for one in fresh]
        self._begin(fresh)
        (consumer.incremental_assign if self._incremental else consumer.assign)(found)
        numbers = [one.partition for one in fresh if one.partition.offset >= 0]
        if numbers:
            # Committed although nothing is handled yet: whoever gets the partition next begins there, too.
            with suppress(KafkaException):
                consumer.store_offsets(offsets=numbers)
        log.info("reading %s", ", ".join(f"{one.topic}[{one.partition}]" for one in found) or "nothing")

    def _beginnings(
        self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]
    ) -> tuple[list[TopicPartition], list[Beginning]]:
        """Return what the group has committed, and where the rest begins."""
        answers = consumer.committed(partitions, timeout=_ANSWER_SECONDS)
        for one in answers:
            if one.error is not None:
                raise KafkaException(one.error)
        new = [TopicPartition(one.topic, one.partition) for one in answers if one.offset < 0]
        fresh = resolve(consumer, new, self._start, _ANSWER_SECONDS) if new else []
        return [one for one in answers if one.offset >= 0], fresh

    def _on_revoke(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(partitions)
        if self._incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def _on_lost(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        self._warn("the group gave this consumer's partitions to others; it joins again")
        self._on_revoke(consumer, partitions)

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        for one in partitions:
            self._assigned.discard((one.topic, one.partition))
            self._not_before_ms.pop((one.topic, one.partition), None)


def _ignore(_error: object) -> None:
    """Take the errors of a librdkafka consumer whose owner is gone."""


_open_clients: weakref.WeakSet[ConsumerClient] = weakref.WeakSet()


def _in_child() -> None:
    for client in list(_open_clients):
        client.leave_to_parent()


os.register_at_fork(after_in_child=_in_child)
