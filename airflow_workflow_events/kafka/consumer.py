"""The typed consumer: events come out, and count as read only once they were handled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from signal import Signals
from time import monotonic
from types import TracebackType
from typing import Any, Self

from airflow_workflow_events.errors import ConfigurationError, KafkaError
from airflow_workflow_events.events.filters import EventFilter, Names
from airflow_workflow_events.events.json_values import JsonValue
from airflow_workflow_events.events.model import DEFAULT_TOPIC, WorkflowEvent
from airflow_workflow_events.events.seen import SeenEvents
from airflow_workflow_events.kafka.config import (
    check_topic,
    check_whole_number,
    named_options,
    whole_number,
)
from airflow_workflow_events.kafka.consumer_client import ConsumerClient
from airflow_workflow_events.kafka.consumer_config import consumer_config
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.handling import (
    STOP_SIGNALS,
    Retries,
    check_handler,
    check_result,
    stopping_on,
)
from airflow_workflow_events.kafka.intake import Intake, Passed, ReceivedEvent
from airflow_workflow_events.kafka.message_headers import drop_unreadable
from airflow_workflow_events.kafka.positions import Start, StartFrom, check_start
from airflow_workflow_events.kafka.producer import CONNECT_TIMEOUT_MS
from airflow_workflow_events.metrics import Metrics, NoMetrics

#: Kafka's own default for the largest message a topic takes (max.message.bytes), in bytes.
MAX_MESSAGE_BYTES = 1_048_588

_event: Callable[[ReceivedEvent], WorkflowEvent] = itemgetter(0)


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
        consumer_timeout_ms: ends the iteration when nothing has come for so long, in milliseconds; not even
            what nobody waits for. It begins once there are partitions to read, within a minute in a group and
            ten seconds without one. Default ``None``: it goes on until :meth:`stop`.
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
        topics = _topics(topic)
        if dead_letter_topic is not None and check_topic(dead_letter_topic, "dead_letter_topic") in topics:
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
        _check_methods("seen", seen, "__contains__", "add")
        _check_methods("metrics", metrics, "incr")
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
            None if dead_letter_topic is None else DeadLetterTopic(client_config, dead_letter_topic, group_id)
        )
        self._topics = topics
        self.timeout_seconds: float | None = (
            None if consumer_timeout_ms is None else consumer_timeout_ms / 1000
        )
        self.max_poll_interval_seconds: float = whole_number(client_config, "max.poll.interval.ms") / 1000
        self.intake: Intake = Intake(
            ConsumerClient(
                client_config,
                topics,
                start,
                in_group=group_id is not None,
                token_seconds=connect_timeout_ms / 1000,
                opens_at_once=self._opens_at_once(client_config),
            ),
            events,
            max_event_bytes=max_event_bytes,
            dead_letters=dead_letters,
            seen=seen,
            metrics=NoMetrics() if metrics is None else metrics,
        )
        self._in_hand: ReceivedEvent | None = None
        self._returned: ReceivedEvent | None = None  # was in hand, and comes next again
        if connect:
            try:
                self.check_connection(connect_timeout_ms / 1000)
            except KafkaError:
                self.intake.close()
                raise

    def _opens_at_once(self, config: Mapping[str, Any]) -> bool:  # noqa: ARG002 - for the consumer for asyncio
        return True

    def __repr__(self) -> str:
        state = "closed" if self.intake.client.closed else "open"
        servers = self.intake.client.connection.servers
        return f"<{type(self).__name__} {servers} topic={','.join(self._topics)} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._settle()
        finally:
            self.close()

    def __iter__(self) -> Iterator[WorkflowEvent]:
        return map(_event, self._received(with_headers=False))

    @property
    def poison_count(self) -> int:
        """How many messages were no workflow event."""
        return self.intake.poison.count

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
            KafkaConnectionError: with ``connect=False`` and ``consumer_timeout_ms``: no broker has answered.
            KafkaError: the client cannot go on, or the dead-letter topic cannot take what has to go there.
        """
        return self._received(with_headers=True)

    def _received(self, *, with_headers: bool) -> Iterator[ReceivedEvent]:
        intake = self.intake
        intake.client.check_usable()
        idleness = Idleness(intake.client, self.timeout_seconds)
        try:
            while True:
                if intake.has_unread or self._in_hand is not None or self._returned is not None:
                    yield from self._hand_out(with_headers=with_headers)
                    idleness.end()  # neither handling is idleness, nor passing over what nobody waits for
                if intake.client.stopped or (remaining := idleness.remaining()) == 0:
                    break
                intake.fetch(remaining)
        except GeneratorExit:
            raise  # a break: what is in hand stays there, and the next iteration goes on behind it
        except BaseException as error:
            # Whatever cut in, such as a signal handler that raises, may have cost the event it cut in at.
            intake.client.fail(error)
            raise
        idleness.check_reached()

    def _hand_out(self, *, with_headers: bool) -> Iterator[ReceivedEvent]:
        """Yield what is there to read, until there is no more or the consumer is stopped."""
        intake, client = self.intake, self.intake.client
        while True:
            if self._in_hand is not None:
                intake.handled(self._in_hand)
                self._in_hand = None
            if client.stopped:
                client.refuse_in_child()
                return
            if monotonic() > intake.behind_at:
                intake.keep_up()
            if self._returned is None:
                taken = intake.read()
            else:
                taken, self._returned = self._returned, None
                if intake.has_moved(taken):
                    continue
            if taken is None:
                return
            if isinstance(taken, Passed) or (intake.remembers and intake.is_repeated(taken.event)):
                intake.move_past(taken)
            else:
                if with_headers:
                    drop_unreadable(taken.message)
                self._in_hand = taken
                yield taken

    def run(
        self,
        handler: Callable[[WorkflowEvent], object],
        *,
        max_retries: int = 3,
        retry_backoff_ms: int = 500,
        max_retry_backoff_ms: int = 10_000,
        stop_on: Sequence[Signals] = STOP_SIGNALS,
    ) -> int:
        """Call ``handler`` with each event until :meth:`stop`, or a signal.

        An event whose handling raises is tried again, after a pause that doubles. When the retries are used
        up it goes to ``dead_letter_topic``; without one the exception is raised, and the event stays
        unhandled. The events behind it in its partition wait meanwhile, so the order holds.

        Args:
            handler: what to call; not an ``async`` function. Its result is ignored.
            max_retries: attempts after the first. Default 3.
            retry_backoff_ms: the first pause, in milliseconds; up to a quarter is taken off at random.
                Default 500.
            max_retry_backoff_ms: the longest pause, in milliseconds. Default 10,000.
            stop_on: signals that end it after the event in hand, where this is the main thread. Default:
                SIGTERM and SIGINT.

        Returns:
            How many events were handled.

        Raises:
            ConfigurationError: a value is wrong, all pauses together outlast ``max_poll_interval_ms``, or the
                handler turns out to be ``async``.
            Exception: what the handler raised, without a dead-letter topic.
            KafkaError: as in :meth:`records`.
        """
        check_handler(handler)
        retries = Retries(
            max_retries,
            retry_backoff_ms,
            max_retry_backoff_ms,
            within_seconds=self.max_poll_interval_seconds,
        )
        handled = 0
        with stopping_on(stop_on, self.stop):
            for received in self.records():
                try:
                    is_handled = self._handle(handler, received, retries)
                except BaseException:
                    self._put_back()
                    raise
                if is_handled:
                    handled += 1
                elif self.intake.client.stopped:
                    self._put_back()  # given up between two attempts: delivered again
                    break
                else:
                    # Not handled: a dead letter that is written back has to be handled, not to be known.
                    self._in_hand = None
                    self.intake.move_past(received)
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
        self._in_hand = self._returned = None
        self.intake.close()

    def _settle(self) -> None:
        if self._in_hand is not None:
            self.intake.handled(self._in_hand)
            self._in_hand = None

    def _put_back(self) -> None:
        """Have the event in hand come next again: it is not handled."""
        self._returned, self._in_hand = self._in_hand, None

    def _handle(
        self, handler: Callable[[WorkflowEvent], object], received: ReceivedEvent, retries: Retries
    ) -> bool:
        """Call the handler; return whether the event is handled, as opposed to dead-lettered or given up."""
        attempts = 0
        while True:
            try:
                result = handler(received.event)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises may pass
                attempts += 1
                failure = error
            else:
                check_result(result, is_awaited=False)
                return True
            pause = retries.next_pause(received.event.event_id, attempts, failure)
            if pause is not None:
                if self.intake.client.wait(pause):
                    return False
            elif self.intake.poison.give_up(received.message, received.event.event_id, failure, attempts):
                return False
            else:
                raise failure


def _topics(topic: object) -> list[str]:
    if isinstance(topic, str):
        return [check_topic(topic)]
    if not isinstance(topic, Iterable) or isinstance(topic, bytes | bytearray):
        raise ConfigurationError(f"topic is {topic!r}: use a topic's name, or a list of them")
    topics = [check_topic(one) for one in topic]
    if not topics:
        raise ConfigurationError("topic is an empty list: name one or more topics")
    return list(dict.fromkeys(topics))


def _check_methods(name: str, value: object, *methods: str) -> None:
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if value is not None and missing:
        raise ConfigurationError(
            f"{name} is of type {type(value).__name__}, which has no {' and no '.join(missing)}"
        )


class Idleness:
    """How long nothing has come; waiting for partitions does not count.

    Args:
        client: whose partitions.
        timeout_seconds: the bound, in seconds; ``None`` for none.
    """

    def __init__(self, client: ConsumerClient, timeout_seconds: float | None) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._began = monotonic()
        self.end()

    def end(self) -> None:
        """Take note that something came."""
        self._since = monotonic()

    def check_reached(self) -> None:
        """Raise :class:`KafkaConnectionError` where nothing came because no broker has ever answered."""
        if not self._client.stopped:
            self._client.check_reached(monotonic() - self._began)

    def remaining(self) -> float | None:
        """Return how long to go on, in seconds; 0 when the bound is reached, ``None`` where there is none."""
        if self._timeout_seconds is None:
            return None
        if self._client.is_waiting_for_partitions:
            self.end()
        return max(self._since + self._timeout_seconds - monotonic(), 0)
