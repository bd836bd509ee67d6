"""The typed consumer: events come out, and count as read only once they were handled."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Self

from airflow_workflow_events.errors import ConfigurationError, KafkaError
from airflow_workflow_events.events.filters import EventFilter, Names
from airflow_workflow_events.events.json_values import JsonValue
from airflow_workflow_events.events.model import DEFAULT_TOPIC, WorkflowEvent
from airflow_workflow_events.events.seen import SeenEvents
from airflow_workflow_events.kafka.config import check_topic, check_whole_number, named_options
from airflow_workflow_events.kafka.consumer_client import ConsumerClient
from airflow_workflow_events.kafka.consumer_config import consumer_config
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent, Taken
from airflow_workflow_events.kafka.positions import Start, StartFrom, check_start
from airflow_workflow_events.kafka.producer import CONNECT_TIMEOUT_MS
from airflow_workflow_events.metrics import Metrics, NoMetrics

log = logging.getLogger(__name__)

#: Kafka's own default for the largest message a topic takes (max.message.bytes), in bytes.
MAX_MESSAGE_BYTES = 1_048_588

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class WorkflowEventConsumer:
    """Reads workflow events; iterate over it.

    At least once: an event counts as handled when the next one is asked for, when :meth:`commit` is called,
    or when a ``with`` block ends without an exception; only then is its offset committed. After a crash, or
    when partitions move in a group, what was in hand is delivered again, under the same ``event_id``.

    What is no workflow event, such as a tombstone or anything that is not JSON, never stops it.

    For use by one thread; :meth:`stop` may be called from any, and from a signal handler. Not to be taken
    into the child of a fork.

    Args:
        bootstrap_servers: ``host:port`` addresses, comma separated or an iterable. Default
            ``"localhost:9092"``.
        group_id: the consumer group, whose members share the partitions and which remembers its offsets.
            Default ``None``: no group; every partition is read and nothing is remembered.
        topic: the topic, or several. Default ``"workflow-events"``.
        start_from: where a partition begins that the group has committed nothing of: ``"earliest"``,
            ``"latest"``, a ``datetime`` with a time zone (the first record since), a ``timedelta`` (that long
            ago) or ``"committed"`` (where the group left off, and the oldest event of what it has not read).
            What a group has committed wins. Default: ``"committed"`` in a group, else ``"latest"``.
        workflow_id: only events of this workflow: a name, a glob, or several of which one must match.
        workflow_run_id: only events of this run; likewise.
        event_type: only events of this type; likewise.
        source: only events of this source; likewise.
        environment: only events of this environment; likewise.
        data: only events with this in ``payload.data``; see
            :class:`~airflow_workflow_events.events.filters.EventFilter`.
        dead_letter_topic: where to put what is no workflow event, and what a handler of :meth:`run` has
            failed on, with the reason in headers. Confirmed before anything is committed. Default ``None``:
            the former is skipped, the latter raises.
        seen: remembers what was handled, so that repetitions are passed over. Default ``None``.
        consumer_timeout_ms: ends the iteration when there was no event for so long, in milliseconds. Default
            ``None``: it goes on until :meth:`stop`.
        max_poll_interval_ms: how long one event may take before a group gives the partitions to others, in
            milliseconds. Default 300,000.
        max_buffered_kib: how much may be fetched ahead, in KiB. Default 16,384.
        max_event_bytes: the most a message may have; a larger one is no workflow event. In bytes. Default
            1,048,588.
        security_protocol: and the following: as in
            :class:`~airflow_workflow_events.kafka.producer.WorkflowEventProducer`.
        sasl_mechanism: see there.
        sasl_username: see there.
        sasl_password: see there.
        oauth_cb: see there.
        ssl_ca_location: see there.
        ssl_certificate_location: see there.
        ssl_key_location: see there.
        ssl_key_password: see there.
        client_id: the name in the broker's logs, quotas and metrics. Default ``"airflow-workflow-events"``.
        connect: whether to prove at construction that a broker answers. Default ``True``.
        connect_timeout_ms: the bound on that proof, in milliseconds. Default 10,000.
        metrics: where to count. Default: nowhere.
        config: any librdkafka options, by librdkafka's names, but for those that decide about commits.

    Raises:
        ConfigurationError: a setting or a combination is wrong; the message says which and why.
        KafkaConnectionError: no broker answered within ``connect_timeout_ms``.
        KafkaAuthenticationError: the broker refused the credentials or the certificate.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] = "localhost:9092",
        group_id: str | None = None,
        *,
        topic: str | Sequence[str] = DEFAULT_TOPIC,
        start_from: Start | None = None,
        workflow_id: Names = None,
        workflow_run_id: Names = None,
        event_type: Names = None,
        source: Names = None,
        environment: Names = None,
        data: Mapping[str, JsonValue] | None = None,
        dead_letter_topic: str | None = None,
        seen: SeenEvents | None = None,
        consumer_timeout_ms: int | None = None,
        max_poll_interval_ms: int = 300_000,
        max_buffered_kib: int = 16_384,
        max_event_bytes: int = MAX_MESSAGE_BYTES,
        security_protocol: str | None = None,
        sasl_mechanism: str | None = None,
        sasl_username: str | None = None,
        sasl_password: str | None = None,
        oauth_cb: Callable[[str], tuple[str, float]] | None = None,
        ssl_ca_location: str | os.PathLike[str] | None = None,
        ssl_certificate_location: str | os.PathLike[str] | None = None,
        ssl_key_location: str | os.PathLike[str] | None = None,
        ssl_key_password: str | None = None,
        client_id: str = "airflow-workflow-events",
        connect: bool = True,
        connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
        metrics: Metrics | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        topics = [topic] if isinstance(topic, str) else list(topic)
        if not topics:
            raise ConfigurationError("topic is an empty list: name one or more topics")
        for one in topics:
            check_topic(one)
        if dead_letter_topic in topics:
            raise ConfigurationError(
                f"dead_letter_topic {dead_letter_topic} is read as well: what is put there would come again"
            )
        if start_from is None:
            start_from = StartFrom.LATEST if group_id is None else StartFrom.COMMITTED
        start = check_start(start_from, in_group=group_id is not None)
        if consumer_timeout_ms is not None:
            check_whole_number("consumer_timeout_ms", consumer_timeout_ms, minimum=1)
        check_whole_number("max_event_bytes", max_event_bytes, minimum=1)
        check_whole_number("connect_timeout_ms", connect_timeout_ms, minimum=1)
        events = EventFilter(
            workflow_id=workflow_id,
            workflow_run_id=workflow_run_id,
            event_type=event_type,
            source=source,
            environment=environment,
            data=data,
        )
        client_config = consumer_config(
            bootstrap_servers=bootstrap_servers,
            group_id=group_id,
            max_poll_interval_ms=max_poll_interval_ms,
            max_buffered_kib=max_buffered_kib,
            options=named_options(
                client_id=client_id,
                security_protocol=security_protocol,
                sasl_mechanism=sasl_mechanism,
                sasl_username=sasl_username,
                sasl_password=sasl_password,
                oauth_cb=oauth_cb,
                ssl_ca_location=ssl_ca_location,
                ssl_certificate_location=ssl_certificate_location,
                ssl_key_location=ssl_key_location,
                ssl_key_password=ssl_key_password,
            ),
            config=config,
        )
        dead_letters = (
            DeadLetterTopic(client_config, dead_letter_topic, group_id) if dead_letter_topic else None
        )
        self._topics = topics
        self.timeout_seconds = None if consumer_timeout_ms is None else consumer_timeout_ms / 1000
        self.max_poll_interval_seconds = max_poll_interval_ms / 1000
        self.intake = Intake(
            ConsumerClient(client_config, topics, start, in_group=group_id is not None),
            events,
            max_event_bytes=max_event_bytes,
            dead_letters=dead_letters,
            seen=seen,
            metrics=metrics or NoMetrics(),
        )
        self._waiting: deque[Taken] = deque()
        self._in_hand: Taken | None = None
        if connect:
            try:
                self.check_connection(connect_timeout_ms / 1000)
            except KafkaError:
                self.intake.close()
                raise

    def __repr__(self) -> str:
        state = "closed" if self.intake.client.closed else "open"
        servers = self.intake.client.connection.servers
        return f"<{type(self).__name__} {servers} topic={','.join(self._topics)} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._settle()
        self.close()

    def __iter__(self) -> Iterator[WorkflowEvent]:
        for received in self.records():
            yield received.event

    @property
    def poison_count(self) -> int:
        """How many messages were no workflow event."""
        return self.intake.poison_count

    @property
    def repeated_count(self) -> int:
        """How many events were passed over because ``seen`` had them."""
        return self.intake.repeated_count

    def check_connection(self, timeout: float) -> None:
        """Prove within ``timeout`` seconds that a broker answers.

        Raises:
            KafkaConnectionError: none did.
            KafkaAuthenticationError: the broker refused the credentials or the certificate.
        """
        self.intake.client.check_connection(timeout)

    def records(self) -> Iterator[ReceivedEvent]:
        """Iterate over events together with where they were read.

        Raises:
            ConsumerClosedError: the consumer is closed, or was made before a fork.
            KafkaAuthorizationError: a topic or the group may not be read.
            KafkaError: the client cannot go on, or the dead-letter topic cannot take what has to go there.
        """
        intake = self.intake
        idle_since = monotonic()
        while True:
            self._settle()
            while self._waiting:
                taken = self._waiting.popleft()
                if taken.event is None or intake.is_repeated(taken.event):
                    intake.handled(taken, is_new=False)
                    continue
                self._in_hand = taken
                yield received_event(taken.message, taken.event)
                self._settle()
                idle_since = monotonic()
                if intake.is_store_due:
                    intake.store()
                if intake.client.stopped:
                    return
            remaining = None
            if self.timeout_seconds is not None:
                if intake.client.is_waiting_for_partitions:
                    idle_since = monotonic()
                remaining = idle_since + self.timeout_seconds - monotonic()
                if remaining <= 0:
                    return
            self._waiting.extend(intake.pull(remaining))
            if not self._waiting and intake.client.stopped:
                return

    def run(
        self,
        handler: Callable[[WorkflowEvent], object],
        *,
        max_retries: int = 3,
        retry_backoff_ms: int = 500,
        max_retry_backoff_ms: int = 10_000,
        stop_on: Sequence[signal.Signals] = _SIGNALS,
    ) -> int:
        """Call ``handler`` with each event until :meth:`stop`, or a signal.

        An event whose handling raises is tried again, after a pause that doubles. When the retries are used
        up it goes to ``dead_letter_topic``; without one the exception is raised, and the event stays
        unhandled. The events behind it in its partition wait meanwhile, so the order holds.

        Args:
            handler: what to call; its result is ignored.
            max_retries: attempts after the first. Default 3.
            retry_backoff_ms: the first pause, in milliseconds; up to a quarter is taken off at random.
                Default 500.
            max_retry_backoff_ms: the longest pause, in milliseconds. Default 10,000.
            stop_on: signals that end it after the event in hand, where this is the main thread. Default:
                SIGTERM and SIGINT.

        Returns:
            How many events were handled.

        Raises:
            ConfigurationError: a value is wrong, or all pauses together outlast ``max_poll_interval_ms``.
            Exception: what the handler raised, without a dead-letter topic.
            KafkaError: as in :meth:`records`.
        """
        retries = Retries(max_retries, retry_backoff_ms, max_retry_backoff_ms)
        retries.check_within(self.max_poll_interval_seconds)
        handled = 0
        with _stopping_on(stop_on, self.stop):
            for received in self.records():
                if self._handle(handler, received, retries):
                    handled += 1
                elif self.intake.client.stopped:
                    self._in_hand = None  # given up between two attempts: delivered again
                    break
        return handled

    def commit(self) -> None:
        """Take every event that was handed out as handled, commit, and wait for the broker's word.

        Raises:
            KafkaError: the broker refused, or did not answer.
        """
        self._settle()
        self.intake.store()
        self.intake.client.commit()

    def stop(self) -> None:
        """End the iteration after the event in hand. From any thread, or a signal handler."""
        self.intake.client.stop()

    def close(self) -> None:
        """Commit what is handled, leave the group and give the client up.

        The event in hand is not handled, unless :meth:`commit` was called. Calling it again does nothing.
        """
        self._waiting.clear()
        self._in_hand = None
        self.intake.close()

    def _settle(self) -> None:
        if self._in_hand is not None:
            self.intake.handled(self._in_hand, is_new=True)
            self._in_hand = None

    def _handle(
        self, handler: Callable[[WorkflowEvent], object], received: ReceivedEvent, retries: Retries
    ) -> bool:
        """Call the handler; return whether the event is handled, as opposed to dead-lettered or given up."""
        attempts = 0
        while True:
            try:
                handler(received.event)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises may pass
                attempts += 1
                failure = error
            else:
                return True
            pause = retries.next_pause(received.event.event_id, attempts, failure)
            if pause is not None:
                if self.intake.client.wait(pause):
                    return False
            elif self.intake.give_up(received, failure, attempts):
                return False
            else:
                self._in_hand = None
                raise failure


class Retries:
    """How often, and after which pauses, a handler is called again.

    Args:
        max_retries: attempts after the first.
        retry_backoff_ms: the first pause, in milliseconds.
        max_retry_backoff_ms: the longest pause, in milliseconds.

    Raises:
        ConfigurationError: a value is wrong.
    """

    def __init__(self, max_retries: int, retry_backoff_ms: int, max_retry_backoff_ms: int) -> None:
        check_whole_number("max_retries", max_retries, minimum=0)
        check_whole_number("retry_backoff_ms", retry_backoff_ms, minimum=1)
        check_whole_number("max_retry_backoff_ms", max_retry_backoff_ms, minimum=retry_backoff_ms)
        self.max_retries = max_retries
        self._first_seconds = retry_backoff_ms / 1000
        self._longest_seconds = max_retry_backoff_ms / 1000

    def check_within(self, seconds: float) -> None:
        """Raise :class:`ConfigurationError` if all pauses take that long: the group would not wait."""
        total = sum(self._longest_pause(attempt) for attempt in range(1, self.max_retries + 1))
        if total >= seconds:
            raise ConfigurationError(
                f"{self.max_retries} retries can pause for {total:g} s in all, and the group waits only "
                f"{seconds:g} s: lower max_retries or max_retry_backoff_ms, or raise max_poll_interval_ms"
            )

    def next_pause(self, event_id: str, attempts: int, failure: Exception) -> float | None:
        """Return the pause before the next attempt, in seconds, after logging why there is one.

        Args:
            event_id: the event.
            attempts: how many have failed.
            failure: why the last one did.

        Returns:
            ``None`` when the retries are used up.
        """
        if attempts > self.max_retries:
            return None
        pause = self._longest_pause(attempts) * random.uniform(0.75, 1)
        log.warning(
            "handling event %s failed, attempt %d of %d, the next in %.1f s: %s: %s",
            event_id,
            attempts,
            self.max_retries + 1,
            pause,
            type(failure).__name__,
            failure,
        )
        return pause

    def _longest_pause(self, attempt: int) -> float:
        return float(min(self._first_seconds * 2 ** min(attempt - 1, 30), self._longest_seconds))


def received_event(message: Any, event: WorkflowEvent) -> ReceivedEvent:
    """Return an event together with where it was read."""
    kind, timestamp_ms = message.timestamp()
    return ReceivedEvent(
        event, message.topic(), message.partition(), message.offset(), timestamp_ms if kind else None, message
    )


@contextmanager
def _stopping_on(signals: Sequence[signal.Signals], stop: Callable[[], None]) -> Iterator[None]:
    """Have signals end the iteration, in the main thread; elsewhere Python has no signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        log.info("stopping on %s", signal.Signals(number).name)
        stop()

    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
