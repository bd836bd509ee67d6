"""One librdkafka consumer: messages come out, and what is handled is committed."""

from __future__ import annotations

import ctypes
import datetime as dt
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from airflow_workflow_events import forks
from airflow_workflow_events.errors import (
    ConsumerClosedError,
    KafkaConnectionError,
    WorkflowEventsError,
)
from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.assignment import ABSENT, FINAL, Assignment, reading_error
from airflow_workflow_events.kafka.commits import Commits
from airflow_workflow_events.kafka.connection import Connection, contained, refused_configuration
from airflow_workflow_events.kafka.oauth import TOKEN_SECONDS, with_first_token
from airflow_workflow_events.kafka.positions import Place, StartFrom
from airflow_workflow_events.kafka.topic_ids import TopicIds

__all__ = ["ConsumerClient", "Place"]

log: logging.Logger = logging.getLogger(__name__)

# A poll returns with the first message; this bounds how late a stop is noticed.
_POLL_SECONDS = 0.1
# librdkafka would wait for a broker that is away until the session ends, 45 s by default.
_CLOSE_SECONDS = 10.0
# How long a group may take to share its partitions out; without one they only have to be found.
_JOIN_SECONDS = 60.0
_FIND_SECONDS = 10.0
# How many messages, and how many bytes, may come up while the group is served amid a batch.
_MAX_EARLY = 500
_MAX_EARLY_BYTES = 1_048_576
_USER_CALLBACKS = frozenset({"error_cb", "stats_cb", "throttle_cb", "on_commit"})


class ConsumerClient:
    """A librdkafka consumer of one or more topics; for one thread at a time, but for :meth:`stop`.

    Args:
        config: librdkafka's configuration, complete and checked.
        topics: what to read.
        start: where partitions begin that the group has committed nothing of.
        in_group: whether to join the group of the configuration. Otherwise every partition is read.
        token_seconds: how long ``oauth_cb`` may take for its first token, in seconds. Default 10.
        opens_at_once: whether to make the librdkafka client now; otherwise :meth:`open` does, which whatever
            waits for the brokers calls. Default: now.

    Raises:
        ConfigurationError: librdkafka refuses the configuration.
        KafkaAuthenticationError: ``oauth_cb`` gave no token.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        start: StartFrom | dt.datetime | dt.timedelta,
        *,
        in_group: bool,
        token_seconds: float = TOKEN_SECONDS,
        opens_at_once: bool = True,
    ) -> None:
        self.connection: Connection = Connection(config)
        self.stopped: bool = False
        self.closed: bool = False
        self._config = dict(config)
        self._topics = list(topics)
        self._in_group = in_group
        self._topic_ids = TopicIds(config)
        self._assignment = Assignment(
            list(topics),
            start,
            self.connection,
            patience_seconds=_JOIN_SECONDS if in_group else _FIND_SECONDS,
            incremental="cooperative" in str(config.get("partition.assignment.strategy", ""))
            or str(config.get("group.protocol", "")).lower() == "consumer",
            wait=self.wait,
            on_gone=self._forget,
            topic_ids=self._topic_ids,
        )
        self._commits = Commits(self.connection)
        self._early: list[Message] = []
        self._paused: list[TopicPartition] = []
        self._failure: BaseException | None = None
        self._stale = False
        self._token_seconds = token_seconds
        self._consumer: Any = None
        if opens_at_once:
            self.open()
        _open_clients.add(self)

    def open(self) -> None:
        """Make the librdkafka client, unless there is one.

        Raises:
            ConfigurationError: librdkafka refuses the configuration.
            KafkaAuthenticationError: ``oauth_cb`` gave no token.
        """
        if self._consumer is not None:
            return
        config = self._config
        with_token = with_first_token(config, self._token_seconds, self.connection.note_token_failure)
        try:
            with forks.critical_section():  # librdkafka and SSL set up what all clients share
                consumer = confluent_kafka.Consumer(
                    {**with_token, **self._callbacks(config)},
                    logger=self.connection.log,
                )
            if self._in_group:
                consumer.subscribe(
                    self._topics,
                    on_assign=self._assignment.on_assign,
                    on_revoke=self._assignment.on_revoke,
                    on_lost=self._assignment.on_lost,
                )
        except (KafkaException, ValueError, TypeError) as error:
            raise refused_configuration(error, config) from None
        self._consumer = consumer

    def check_connection(self, timeout: float) -> None:
        """Prove within ``timeout`` seconds that a broker answers; without a group, settle where to begin.

        Raises:
            KafkaAuthenticationError: at once, where the broker refuses the credentials or the certificate.
            KafkaAuthorizationError: without a group: a topic may not be read.
            KafkaConnectionError: no broker answered in time.
        """
        self.check_usable()
        self.open()
        # To ask for the cluster's id connects to no broker, but waits for what librdkafka does each second.
        ask = partial(self._consumer.list_topics, self._topics[0])
        self.connection.prove(lambda seconds: ask(timeout=seconds), self.serve, timeout)
        if self._in_group:
            self._assignment.look(self._consumer)
        else:
            self._assignment.discover(self._consumer)

    @property
    def begun(self) -> dict[Place, int]:
        """Without a group: the partitions that are read, and the offset at which each began."""
        return self._assignment.beginnings.begun

    @property
    def is_settled(self) -> bool:
        """Without a group: whether it is known of every topic where it begins, or that it is not there."""
        return self._assignment.is_settled

    @property
    def moves(self) -> Counter[Place]:
        """How often each partition was taken away: what was fetched of it before is delivered again."""
        return self._assignment.moves

    def check_reached(self, seconds: float) -> None:
        """Raise where no broker has ever answered, for so many seconds by now: then silence says nothing.

        Raises:
            KafkaConnectionError: none has.
        """
        if not self.connection.was_accepted:
            raise KafkaConnectionError(self.connection.absence(seconds))

    def stop(self) -> None:
        """Have :meth:`next_batch` return at once, from now on. From any thread, or a signal handler."""
        self.stopped = True

    @property
    def is_waiting_for_partitions(self) -> bool:
        """Whether it has no partition for the moment, but may soon have: that is no idleness."""
        return self._assignment.is_awaited

    def wait(self, seconds: float) -> bool:
        """Wait so long, in seconds, or until :meth:`stop`; return whether it was stopped."""
        # An event's lock could be held by the very thread whose signal handler calls stop().
        deadline = monotonic() + seconds
        while not self.stopped and (remaining := deadline - monotonic()) > 0:
            sleep(min(remaining, _POLL_SECONDS))
        return self.stopped

    def fail(self, error: BaseException) -> None:
        """Refuse to go on: what was handed out last is not handled, and going on would leave it out."""
        if self._failure is None:
            self._failure = error

    def refuse_in_child(self) -> None:
        """Raise :class:`ConsumerClosedError` in the child of a fork."""
        if self._stale:
            raise ConsumerClosedError("the consumer was made before a fork: make one in the child")

    def check_usable(self) -> None:
        """Raise unless the consumer can go on.

        Raises:
            ConsumerClosedError: it is closed, was made before a fork, or was interrupted while it read.
            KafkaError: why it could not go on before.
        """
        self.refuse_in_child()
        if self.closed:
            raise ConsumerClosedError("the consumer is closed: create a new one")
        if isinstance(self._failure, WorkflowEventsError):
            raise self._failure
        if self._failure is not None:
            raise ConsumerClosedError(
                f"reading was interrupted by {type(self._failure).__name__}, and what was being read then "
                "would be left out: create a new consumer, which begins with it"
            ) from self._failure

    def next_batch(self, size: int, timeout: float | None) -> list[Message]:
        """Return up to ``size`` messages as soon as there is one; empty when stopped or out of time.

        Args:
            size: the most to return.
            timeout: how long to wait, in seconds; ``None`` waits without end.

        Raises:
            ConsumerClosedError: the consumer is closed, or was made before a fork.
            KafkaAuthenticationError: the broker refuses the credentials, and has never taken them, or
                ``oauth_cb`` gave no token.
            KafkaAuthorizationError: a topic or the group may not be read.
            KafkaError: the client cannot go on.
        """
        self.check_usable()
        try:
            self.open()
            return self._poll(size, None if timeout is None else monotonic() + timeout)
        except BaseException as error:
            # A signal handler that raises may cost the very message that was taken from the queue.
            self.fail(error)
            raise

    def serve(self) -> None:
        """Take part in what the group does, amid a batch; whoever does not for too long is taken for dead.

        Raises:
            KafkaError: as :meth:`next_batch`.
        """
        self.check_usable()
        try:
            message = self._consumer.poll(0)
            if message is None:
                return
            self._early.extend(self._good([message]))
            # What the group does is told with messages, and whoever is slow would gather them.
            if len(self._early) >= _MAX_EARLY or sum(map(len, self._early)) >= _MAX_EARLY_BYTES:
                self._paused = self._consumer.assignment()
                self._consumer.pause(self._paused)
        except BaseException as error:
            self.fail(error)
            raise

    def _poll(self, size: int, deadline: float | None) -> list[Message]:
        if self._assignment.begin_to_wait() and self._in_group:
            self._assignment.look(self._consumer)
        if self._early:
            early, self._early = self._early, []
            self._resume()
            more = self._consumer.consume(size - len(early), 0) if size > len(early) else []
            return early + self._good(more)
        while not self.stopped:
            remaining = _POLL_SECONDS if deadline is None else min(deadline - monotonic(), _POLL_SECONDS)
            if not self._in_group:
                self._assignment.discover(self._consumer)
            # Poll returns with the first message, whereas consume would wait until it has them all.
            first = cooperation.poll(self._consumer.poll, max(remaining, 0), _is_there)
            if first is not None:
                found = [first]
                if size > 1:
                    # A rebalance in here may take a partition away whose messages are among those found. They
                    # are handed out nevertheless, and again by whoever has it now; their positions stay out.
                    found += self._consumer.consume(size - 1, 0)
                if messages := self._good(found):
                    return messages
            else:
                self._check_refusal()
            if deadline is not None and monotonic() >= deadline:
                break
        return []

    def _check_refusal(self) -> None:
        refusal = self.connection.refusal() if self.connection.is_troubled else None
        if refusal is None:
            return
        if not self.connection.was_accepted:
            raise refusal
        self.connection.warn(f"the broker refuses the credentials that it took before: {refusal}")

    def offsets_of(self, start: dt.datetime | StartFrom) -> dict[Place, int]:
        """Return for each partition that is read the offset at which it would begin.

        Raises:
            KafkaError: the brokers do not say.
        """
        return self._assignment.offsets_of(self._consumer, start)

    def assign_at(self, positions: Mapping[Place, int]) -> None:
        """Without a group: go on reading each partition at an offset, and drop what was fetched before.

        Args:
            positions: for each topic and partition the offset that comes next; where it has none, the
                partition goes on where it began.
        """
        self._early.clear()
        self._resume()
        self._assignment.assign_at(self._consumer, positions)

    def store(self, positions: Mapping[Place, int]) -> None:
        """Say what is handled, so that it is committed in the background, on a rebalance and on closing.

        Args:
            positions: for each topic and partition the offset that comes next.
        """
        if self._in_group and not self.closed and not self._stale:
            self._commits.store(self._consumer, positions)

    def commit(self) -> None:
        """Commit what is stored and wait for the broker's word.

        Raises:
            KafkaError: the broker refused.
            KafkaTimeoutError: it did not answer within 30 seconds.
        """
        self.check_usable()
        refused = self._commits.commit(self._consumer, self.serve)
        if refused is not None:
            raise reading_error(refused, self.connection)

    def close(self) -> None:
        """Commit what is stored, leave the group and give the client up. Calling it again does nothing.

        Where no broker answers it returns after ten seconds; what could not be committed is delivered again.
        """
        self.stopped = True
        if self.closed or self._stale:
            return
        self.closed = True
        self._topic_ids.close()
        _open_clients.discard(self)
        if self._consumer is None:
            return
        closing = threading.Thread(
            target=cooperation.call, args=(self._consumer.close,), name="workflow-events-closing", daemon=True
        )
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            log.warning(
                "no broker at %s answered while the consumer was closed; what it has not committed is "
                "delivered again",
                self.connection.servers,
            )
        else:
            log.debug("consumer of %s closed", self.connection.servers)

    def leave_to_parent(self) -> None:
        """In the child of a fork: forget the parent's consumer without touching it."""
        # Destroying it would wait for threads that do not exist here, so its reference count never drops.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._consumer))
        self._topic_ids.leave_to_parent()
        self._stale = True
        self.stopped = True  # what was read ahead is the parent's, too

    def _callbacks(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what librdkafka calls. It must not keep this object alive, nor may it see an exception."""
        users = {name: contained(name, config[name]) for name in _USER_CALLBACKS & config.keys()}
        note, answered = weakref.WeakMethod(self.connection.note), weakref.WeakMethod(self._commits.note)

        def on_error(error: KafkaError) -> None:
            (note() or _ignore)(error)
            users.get("error_cb", _ignore)(error)

        def on_commit(error: KafkaError | None, partitions: list[TopicPartition] | None) -> None:
            (answered() or _ignore)(error, partitions)
            users.get("on_commit", _ignore)(error, partitions)

        return {**users, "error_cb": on_error, "on_commit": on_commit}

    def _good(self, found: list[Message]) -> list[Message]:
        """Return the messages among what was found, and see to the rest."""
        beginnings = self._assignment.beginnings
        messages = [message for message in found if message.error() is None]
        if len(messages) < len(found):
            for message in found:
                if (error := message.error()) is not None:
                    self._meet(error, message.topic() or ", ".join(self._topics))
        if beginnings.looks_at_age:
            messages = [message for message in messages if not beginnings.is_old(message)]
        return messages

    def _meet(self, error: KafkaError, topic: str) -> None:
        code = error.code()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED and not self._in_group:
            # librdkafka looks for the coordinator of the group that it wants named; nobody needs it.
            return
        if error.fatal() or code in FINAL:
            raise reading_error(error, self.connection, topic)
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            return
        if code in ABSENT:
            self._assignment.miss(topic)
        elif code == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001 - its public name
            self.connection.warn(
                "handling took longer than max_poll_interval_ms, so the group gave the partitions away; "
                "what was in hand is delivered again: raise max_poll_interval_ms"
            )
        else:
            self.connection.warn(f"the Kafka client goes on after: {self.connection.safe_text(error)}")

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        if paused:
            self._consumer.resume(paused)

    def _forget(self, gone: set[Place]) -> None:
        self._resume()  # or a partition would still be paused when it comes back
        self._early = [
            one for one in self._early if (str(one.topic()), int(one.partition() or 0)) not in gone
        ]
        self._commits.forget(gone)


def _is_there(message: Message | None) -> bool:
    return message is not None


def _ignore(*_arguments: object) -> None:
    """Take what librdkafka tells a consumer whose owner is gone."""


_open_clients: weakref.WeakSet[ConsumerClient] = weakref.WeakSet()


def _in_child() -> None:
    for client in list(_open_clients):
        client.leave_to_parent()


forks.register(after_in_child=_in_child)
