"""One librdkafka producer and everything that must live and die with it.

It is opened, proves that a broker answers, takes records, serves reports, survives a fork by being replaced
in the child, and delivers what is under way before it is closed or the process ends.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

import confluent_kafka

from airflow_workflow_events import forks
from airflow_workflow_events.errors import (
    KafkaError,
    KafkaQueueFullError,
    KafkaTimeoutError,
    ProducerClosedError,
)
from airflow_workflow_events.events.codec import KafkaRecord
from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.connection import (
    ClientLog,
    Connection,
    contained,
    refused_configuration,
)
from airflow_workflow_events.kafka.oauth import TOKEN_SECONDS, with_first_token
from airflow_workflow_events.kafka.pending import Reporter
from airflow_workflow_events.kafka.polling import Poller, Waitable

log: logging.Logger = logging.getLogger(__name__)

OnDelivery = Callable[[Any, Any], None]
"""librdkafka's delivery callback: an error or None, and the message."""

# A process that ends without close() still gets this long to deliver what was sent without waiting.
_EXIT_FLUSH_SECONDS = 10.0
# After giving up, librdkafka still has to hand back each message with its reason.
_PURGE_SECONDS = 5.0
# librdkafka reports an event within its delivery timeout; a report that a signal handler lost never comes.
_GRACE_SECONDS = 5.0
_USER_CALLBACKS = frozenset({"error_cb", "stats_cb", "throttle_cb"})
# Errors are told by polling. Those told after so long a pause, in seconds, may be old. Proving the connection
# polls every four seconds at least.
_LONG_AGO_SECONDS = 6.0
_ANY_PARTITION = -1  # RD_KAFKA_PARTITION_UA: by the key


class ProducerClient:
    """A librdkafka producer, fork-safe and closed with care.

    Args:
        config: librdkafka's configuration, complete and checked.
        failure_log_level: at which an event that was not delivered is logged. Default ``logging.ERROR``.
        token_seconds: how long ``oauth_cb`` may take for its first token, in seconds. Default 10.
        opens_at_once: whether to make the librdkafka client now; otherwise the first use does. Default: now.

    Raises:
        ConfigurationError: librdkafka refuses the configuration.
        KafkaAuthenticationError: ``oauth_cb`` gave no token.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        failure_log_level: int = logging.ERROR,
        *,
        token_seconds: float = TOKEN_SECONDS,
        opens_at_once: bool = True,
    ) -> None:
        self.config: dict[str, Any] = dict(config)
        self._token_seconds = token_seconds
        self._failure_log_level = failure_log_level
        self.closed: bool = True  # until it is open
        self._state_lock = threading.Lock()
        self._connection = Connection(self.config)
        if opens_at_once:
            self._open()
        else:  # as in the child of a fork: at the first use
            self._producer: Any = None
            self.closed = False
            self.leave_to_parent()
        # librdkafka has accepted the number; without a limit a message stays until it is delivered.
        limit = int(self.config["message.timeout.ms"]) / 1000
        self._longest_delivery_seconds = limit + _GRACE_SECONDS if limit else math.inf

    @property
    def servers(self) -> str:
        """The bootstrap servers."""
        return self._connection.servers

    def check_usable(self) -> None:
        """Raise :class:`ProducerClosedError` after :meth:`close`.

        Opens a new librdkafka producer after a fork, in the child, and after a fatal error, from which a
        producer never recovers.
        """
        if self.closed:
            raise ProducerClosedError("the producer is closed: create a new one")
        if self._stale or self._guard.failed:
            with self._state_lock:
                if self.closed:
                    raise ProducerClosedError("the producer is closed: create a new one")
                if self._stale or self._guard.failed:
                    self._open()

    @property
    def is_open(self) -> bool:
        """Whether there is a librdkafka client, so that using it makes none."""
        return not self._stale

    def check_may_wait(self) -> None:
        """Raise :class:`ReentrantCallError` in a delivery callback, where waiting for a report never ends."""
        self._poller.refuse_in_callback()

    def check_connection(self, timeout: float) -> None:
        """Prove within ``timeout`` seconds that a broker answers.

        Raises:
            KafkaAuthenticationError: at once, where the broker refuses the credentials or the certificate.
            KafkaConnectionError: no broker answered in time.
        """
        self.check_may_wait()
        self.check_usable()
        # A metadata request fetches the whole topic list, but confluent-kafka below 2.16 has nothing else.
        producer = self._producer
        ask = producer.cluster_id if hasattr(producer, "cluster_id") else producer.list_topics
        self._connection.prove(lambda seconds: ask(timeout=seconds), lambda: self._poller.serve(0), timeout)

    def trouble_since(self, moment: float) -> str | None:
        """Return the last error since ``moment`` (monotonic seconds), the likely cause of a timeout."""
        return self._connection.trouble_since(moment)

    def produce(self, record: KafkaRecord, topic: str, on_delivery: OnDelivery) -> None:
        """Put a record into librdkafka's queue; never blocks.

        Raises:
            KafkaQueueFullError: there is no room.
            KafkaError: librdkafka refused it.
            ProducerClosedError: the producer was closed meanwhile.
        """
        key, value, headers = record
        try:
            # Nothing gets in once close() has begun to count what is under way.
            with self._gate:
                if self.closed:
                    raise ProducerClosedError("the producer was closed meanwhile: this event was not sent")
                # By position, in the order of confluent-kafka's documentation: keywords cost a fifth more.
                self._producer.produce(topic, value, key, _ANY_PARTITION, on_delivery, None, 0, headers)
        except BufferError:
            raise KafkaQueueFullError(
                "librdkafka's queue is full: the brokers take events more slowly than they come "
                "(queue.buffering.max.messages, queue.buffering.max.kbytes)",
                name="_QUEUE_FULL",
            ) from None
        except confluent_kafka.KafkaException as error:
            if error.args[0].name() == "_FATAL":  # and perhaps nobody polled, and so heard why
                self._guard.failed = True
                self._poller.serve(0)
            raise self.reporter.error(error.args[0], topic) from None
        except TypeError:
            raise _interrupted() from None

    def produce_many(
        self, records: Sequence[tuple[int, KafkaRecord]], topic: str, settle: Callable[[int, Any, Any], None]
    ) -> int:
        """Put numbered records into librdkafka's queue, in order, until one does not get in; never blocks.

        Args:
            records: the records, each with its number.
            topic: where to.
            settle: librdkafka's delivery callback, which gets the record's number first.

        Returns:
            How many got in. :meth:`enqueue` waits for room for the next one, or says what is wrong with it.

        Raises:
            KafkaError: a signal handler cut in.
        """
        produce, count = self._producer.produce, 0
        with self._gate:
            if self.closed:
                return 0
            try:
                for number, (key, value, headers) in records:
                    produce(topic, value, key, _ANY_PARTITION, partial(settle, number), None, 0, headers)
                    count += 1
            except (BufferError, confluent_kafka.KafkaException):
                pass  # the caller tries this one again by itself
            except TypeError:
                raise _interrupted() from None
        return count

    def enqueue(
        self,
        record: KafkaRecord,
        topic: str,
        on_delivery: OnDelivery,
        event_id: str,
        deadline: float | None,
    ) -> None:
        """Put a record into the queue, waiting for room until the deadline.

        Raises:
            KafkaTimeoutError: there was no room in time; the event was not sent.
            KafkaError: librdkafka refused it.
        """
        limit = deadline
        while True:
            try:
                return self.produce(record, topic, on_delivery)
            except KafkaQueueFullError:
                if limit is None:
                    # What is in the queue leaves it within the delivery timeout, one way or the other.
                    limit = monotonic() + self._longest_delivery_seconds
                if monotonic() >= limit:
                    raise KafkaTimeoutError(
                        f"event {event_id} was not sent: librdkafka's queue stayed full until time ran out",
                        name="_QUEUE_FULL",
                    ) from None
                self._poller.serve(min(0.05, max(limit - monotonic(), 0)))

    def wait(self, pending: Waitable, deadline: float | None) -> bool:
        """Wait for reports until ``pending`` is done or the deadline has passed; return whether it is done.

        What is not done by then, or when a signal handler raises, goes on: its report is served in the
        background. ``None`` waits as long as a delivery can take.
        """
        try:
            done = self._poller.wait(pending, self._bounded(deadline))
        except BaseException:
            self.serve(pending)
            raise
        if not done:
            self.serve(pending)
        return done

    def serve(self, pending: Waitable) -> None:
        """Have the background thread serve the report of what nobody waits for (any more)."""
        pending.owner = self  # a producer forgotten right after sending still delivers
        self.reporter.unwaited.add(pending)
        if pending.done:  # its report came before it was there to be discarded
            self.reporter.unwaited.discard(pending)
        else:
            self._poller.serve_in_background()

    def flush(self, deadline: float | None) -> int:
        """Wait until nothing is under way or the deadline has passed; return how many events still are."""
        return 0 if self._poller.flush(self._bounded(deadline)) else self.under_way

    @property
    def under_way(self) -> int:
        """How many events have no report yet."""
        return len(self._producer)

    def abandon(self) -> None:
        """Give up what is under way without waiting; may be called from a signal handler."""
        if not self._stale:
            self._producer.purge(blocking=False)

    def close(self, timeout: float | None) -> bool:
        """Deliver what is under way for ``timeout`` seconds, give up the rest; return whether all left."""
        if not self._stale:
            self.check_may_wait()
        with self._state_lock:
            if self.closed:
                return True
            with self._gate:
                self.closed = True
        _open_clients.discard(self)
        if self._stale:  # what is under way is the parent's
            return True
        left = self.flush(None if timeout is None else monotonic() + timeout)
        if left:
            log.log(self._failure_log_level, "closing with %d event(s) undelivered after %s s", left, timeout)
            self._producer.purge()  # each gets a report with its reason, and is logged by its id
            self._poller.flush(monotonic() + _PURGE_SECONDS)
        self._poller.stop()
        log.debug("producer for %s closed", self.servers)
        return left == 0

    def _open(self) -> None:
        """Make the librdkafka producer and what belongs to it; also in the child of a fork."""
        callbacks = {
            name: contained(name, self.config[name]) for name in _USER_CALLBACKS & self.config.keys()
        }
        users = callbacks.get("error_cb", _ignore)
        # librdkafka must not keep this object alive, so that forgetting it frees librdkafka's threads.
        own = weakref.WeakMethod(self._connection.note)

        def on_error(error: confluent_kafka.KafkaError) -> None:
            (own() or _ignore)(error)
            users(error)

        config = with_first_token(self.config, self._token_seconds, self._connection.note_token_failure)
        try:
            with forks.critical_section():  # librdkafka and SSL set up what all clients share
                self._producer = confluent_kafka.Producer(
                    {**config, **callbacks, "error_cb": on_error},
                    # Who publishes and reports failures itself needs no second line about the same.
                    logger=ClientLog(self._connection, self._failure_log_level),
                )
        except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
            raise refused_configuration(error, self.config) from None
        self._gate = threading.Lock()
        self.reporter: Reporter = Reporter(self.config, self._failure_log_level)
        self._guard = _Guard(self._producer, self.reporter, self._connection)
        self._poller = Poller(self._guard, self.reporter.unwaited)
        self._connection.renew()
        self._stale = False
        self.closed = False
        _open_clients.add(self)
        _deliver_at_exit_of_this_process()

    def _bounded(self, deadline: float | None) -> float:
        return monotonic() + self._longest_delivery_seconds if deadline is None else deadline

    def leave_to_parent(self) -> None:
        """In the child of a fork: forget the parent's producer without touching it."""
        # Destroying it would wait for threads that do not exist here, so its reference count never drops.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._state_lock = threading.Lock()  # another thread may have held the parent's
        self._gate = threading.Lock()
        self.reporter = Reporter(self.config, self._failure_log_level)
        self._stale = True


class _Guard:
    """Polls a librdkafka producer, and gives up what cannot be sent as soon as that is known.

    The broker and an idempotent producer may come to disagree about what was written, or the broker may
    refuse it idempotence. librdkafka then takes and sends nothing any more: a fatal error, which polling
    raises once. Where every broker refuses the client, librdkafka goes on trying until each event's time is
    up.

    Args:
        producer: the producer.
        reporter: is told the error.
        connection: knows whether the brokers take the client.
    """

    def __init__(
        self, producer: confluent_kafka.Producer, reporter: Reporter, connection: Connection
    ) -> None:
        self._producer = producer
        self._reporter = reporter
        self._connection = connection
        self._polled_at = monotonic()
        self.failed = False

    def poll(self, timeout: float) -> int:
        """Poll for at most ``timeout`` seconds."""
        if monotonic() - self._polled_at > _LONG_AGO_SECONDS:
            self._catch_up()
        try:
            return cooperation.poll(self._producer.poll, timeout, bool)
        except confluent_kafka.KafkaException as error:
            self._fail(error.args[0])
            return 0
        finally:
            self._look_at_connection()

    def __len__(self) -> int:
        return len(self._producer)

    def flush(self, timeout: float) -> int:
        """Flush for at most ``timeout`` seconds."""
        try:
            return cooperation.poll(self._producer.flush, timeout, lambda left: not left)
        except confluent_kafka.KafkaException as error:
            self._fail(error.args[0])
            return len(self._producer)
        finally:
            self._look_at_connection()

    def _catch_up(self) -> None:
        """Pass over what was wrong while nobody looked: it may have been put right since."""
        try:
            self._producer.poll(0)
        except confluent_kafka.KafkaException as error:
            self._fail(error.args[0])
        self._connection.forget()

    def _look_at_connection(self) -> None:
        self._polled_at = monotonic()
        if self._reporter.has_delivered:
            self._reporter.has_delivered = False
            self._reporter.refusal = None
            self._connection.accept()
        if self._connection.is_troubled and (refusal := self._connection.final_refusal()) is not None:
            self._reporter.refusal = refusal
            # In flight is nothing that waits for its first connection.
            self._producer.purge(in_flight=self._connection.was_accepted, blocking=False)

    def _fail(self, error: confluent_kafka.KafkaError) -> None:
        log.error("the Kafka client failed and is replaced: %s", self._reporter.safe_text(error))
        self._reporter.fatal = error
        self.failed = True
        self._producer.purge(blocking=False)  # what is under way gets its report, as a failure, at once


def _interrupted() -> KafkaError:
    """Return the error of an event that a signal handler kept from being sent.

    confluent-kafka reads each header's name in a way that lets pending signal handlers run, and reports
    whatever they raise as a ``TypeError`` about the name. The names and values here are always right.
    """
    return KafkaError(
        "a signal handler cut in as the event was handed to the client, which lost what it raised: "
        "the event was not sent",
        name="_INTR",
        retriable=True,
    )


def _ignore(_error: object) -> None:
    """Take the errors of a librdkafka producer whose owner is gone."""


_open_clients: weakref.WeakSet[ProducerClient] = weakref.WeakSet()


def _in_child() -> None:
    for client in list(_open_clients):
        client.leave_to_parent()


def _at_exit() -> None:
    for client in list(_open_clients):
        if client.reporter.unwaited:
            client.close(_EXIT_FLUSH_SECONDS)


def _deliver_at_exit_of_this_process() -> None:
    """Register :func:`_at_exit`, once in every process.

    A forked child of Airflow runs only the exit handlers that were registered after the fork, and one of
    multiprocessing only its own kind.
    """
    global _exit_registered_in  # noqa: PLW0603 - the registration is the process's
    if _exit_registered_in == os.getpid():
        return
    _exit_registered_in = os.getpid()
    atexit.register(_at_exit)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=10)


_exit_registered_in: int | None = None
forks.register(after_in_child=_in_child)
