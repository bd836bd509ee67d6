"""The typed producer: an event goes in, the broker's word on it comes out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

from airflow_workflow_events.errors import (
    ConfigurationError,
    EventSerializationError,
    EventTooLargeError,
    KafkaError,
    KafkaQueueFullError,
    KafkaTimeoutError,
    WorkflowEventsError,
    printable,
)
from airflow_workflow_events.events.cloudevents import CloudEventsMode
from airflow_workflow_events.events.codec import MAX_EVENT_BYTES, KafkaRecord, encode
from airflow_workflow_events.events.model import DEFAULT_TOPIC, WorkflowEvent
from airflow_workflow_events.kafka.client import ProducerClient
from airflow_workflow_events.kafka.config import check_topic, check_whole_number, named_options
from airflow_workflow_events.kafka.pending import PendingBatch, PendingEvent, timeout_error
from airflow_workflow_events.kafka.producer_config import producer_config
from airflow_workflow_events.kafka.reports import DeliveryReport

#: How long the producer may take, at construction, to prove that a broker answers.
CONNECT_TIMEOUT_MS = 10_000

# Without a linger, librdkafka sends whatever is queued when the broker has answered: events queued in quick
# succession share a request, those queued one serialisation apart hardly do.
_ENCODED_AT_ONCE = 200

ValueSerializer = Callable[[bytes, str], bytes]
"""Takes an event's JSON and the topic it goes to, and returns the value of the message."""


class WorkflowEventProducer:
    """Publishes workflow events to Kafka, and reports success only after the broker has confirmed them.

    Safe to use from several threads. After a fork the child has a client of its own, made on first use, as
    librdkafka's threads do not survive a fork; what was under way stays the parent's.

    Args:
        bootstrap_servers: ``host:port`` addresses, comma separated or an iterable. Default
            ``"localhost:9092"``.
        acks: who confirms: ``"all"`` in-sync replicas (default), ``"1"`` the leader, ``"0"`` nobody.
        retries: attempts after the first, within ``delivery_timeout_ms``. Default 3.
        max_in_flight_requests_per_connection: requests under way at once. Default 1.
        request_timeout_ms: how long a broker may take to answer one request, in milliseconds; at most
            ``delivery_timeout_ms`` is used. Default 30,000.
        delivery_timeout_ms: how long an event may take from being accepted to its report, retries included,
            in milliseconds. Default 120,000.
        topic: where events go unless a call says otherwise. Default ``"workflow-events"``.
        cloudevents: ``"binary"`` (default), ``"structured"`` or ``"off"``.
        security_protocol: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``. Default: librdkafka's,
            ``PLAINTEXT``.
        sasl_mechanism: ``PLAIN``, ``SCRAM-SHA-256``, ``SCRAM-SHA-512``, ``OAUTHBEARER`` or ``GSSAPI``.
        sasl_username: for PLAIN and SCRAM.
        sasl_password: for PLAIN and SCRAM. Never logged.
        oauth_cb: for OAUTHBEARER: takes librdkafka's ``sasl.oauthbearer.config`` and returns a token and its
            expiry in seconds since the epoch.
        ssl_ca_location: file of the CA certificates in PEM. Default: the system's.
        ssl_certificate_location: file of the client's certificate in PEM.
        ssl_key_location: file of the client's private key in PEM.
        ssl_key_password: password of that key. Never logged.
        enable_idempotence: whether the broker drops batches that a retry repeats. Default ``None``: on
            wherever ``acks``, ``retries`` and ``max_in_flight_requests_per_connection`` allow it.
        client_id: the name in the broker's logs, quotas and metrics. Default ``"airflow-workflow-events"``.
        max_event_bytes: the most an event may take as a record, in bytes. Default 921,600; a larger one needs
            ``config={"message.max.bytes": ...}`` and the topic's ``max.message.bytes`` raised as well.
        connect: whether to prove at construction that a broker answers. Default ``True``.
        connect_timeout_ms: the bound on that proof, in milliseconds. Default 10,000.
        failure_log_level: at which an event that was not delivered is logged; lower it where whoever
            publishes keeps the event and tries again. Default ``logging.ERROR``.
        value_serializer: takes an event's JSON and the topic, and returns the value to send in its place,
            such as :class:`~airflow_workflow_events.kafka.registry.RegistryValueSerializer`. Not with
            ``cloudevents="structured"``. Default ``None``: the JSON is sent.
        config: any librdkafka options, by librdkafka's names; they win over the parameters above.

    Raises:
        ConfigurationError: a setting or a combination is wrong; the message says which and why.
        KafkaConnectionError: no broker answered within ``connect_timeout_ms``.
        KafkaAuthenticationError: the broker refused the credentials or the certificate.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] = "localhost:9092",
        acks: str | int = "all",
        retries: int = 3,
        max_in_flight_requests_per_connection: int = 1,
        request_timeout_ms: int = 30_000,
        delivery_timeout_ms: int = 120_000,
        *,
        topic: str = DEFAULT_TOPIC,
        cloudevents: CloudEventsMode | str = CloudEventsMode.BINARY,
        security_protocol: str | None = None,
        sasl_mechanism: str | None = None,
        sasl_username: str | None = None,
        sasl_password: str | None = None,
        oauth_cb: Callable[[str], tuple[str, float]] | None = None,
        ssl_ca_location: str | os.PathLike[str] | None = None,
        ssl_certificate_location: str | os.PathLike[str] | None = None,
        ssl_key_location: str | os.PathLike[str] | None = None,
        ssl_key_password: str | None = None,
        enable_idempotence: bool | None = None,
        client_id: str = "airflow-workflow-events",
        max_event_bytes: int = MAX_EVENT_BYTES,
        connect: bool = True,
        connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
        failure_log_level: int = logging.ERROR,
        value_serializer: ValueSerializer | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._topic = check_topic(topic)
        self._legal_topics = {topic}
        try:
            self._mode = CloudEventsMode(cloudevents)
        except ValueError:
            raise ConfigurationError(
                f"cloudevents is {cloudevents!r}: use 'binary', 'structured' or 'off'"
            ) from None
        if value_serializer is not None and self._mode is CloudEventsMode.STRUCTURED:
            raise ConfigurationError(
                "value_serializer does not go with cloudevents='structured': no reader of CloudEvents would "
                "find the envelope in what it makes; use 'binary', which has the attributes as headers"
            )
        self._value_serializer = value_serializer
        check_whole_number("max_event_bytes", max_event_bytes, minimum=1)
        check_whole_number("connect_timeout_ms", connect_timeout_ms, minimum=1)
        self._max_event_bytes = max_event_bytes
        client_config = producer_config(
            bootstrap_servers=bootstrap_servers,
            acks=acks,
            retries=retries,
            max_in_flight_requests_per_connection=max_in_flight_requests_per_connection,
            request_timeout_ms=request_timeout_ms,
            delivery_timeout_ms=delivery_timeout_ms,
            enable_idempotence=enable_idempotence,
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
        self._client = ProducerClient(
            client_config,
            failure_log_level,
            token_seconds=connect_timeout_ms / 1000,
            opens_at_once=self._opens_at_once(client_config),
        )
        if connect:
            try:
                self._client.check_connection(connect_timeout_ms / 1000)
            except KafkaError:
                self._client.close(timeout=0)
                raise

    def _opens_at_once(self, config: Mapping[str, Any]) -> bool:  # noqa: ARG002 - for the producer for asyncio
        return True

    def __repr__(self) -> str:
        state = "closed" if self._client.closed else "open"
        return f"<{type(self).__name__} {self._client.servers} topic={self._topic} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def topic(self) -> str:
        """Where events go unless a call says otherwise."""
        return self._topic

    @property
    def client_config(self) -> dict[str, Any]:
        """A copy of librdkafka's configuration as it is in force. Holds the secrets: not for logging."""
        return dict(self._client.config)

    def publish_event(
        self, event: WorkflowEvent, topic: str | None = None, timeout: float | None = None
    ) -> bool:
        """Publish one event and wait for the broker's word.

        Args:
            event: the event.
            topic: where to. Default: the producer's topic.
            timeout: how long to wait, in seconds. Default ``None``: until the delivery report, which comes
                within ``delivery_timeout_ms``.

        Returns:
            ``True`` after the broker confirmed the event; ``False`` where delivery failed, after logging the
            event's id and the reason.

        Raises:
            KafkaTimeoutError: ``timeout`` ran out; the outcome is unknown, and publishing the same event
                again is safe for consumers that dedupe by its id.
            EventTooLargeError: the event is larger than ``max_event_bytes``.
            EventSerializationError: the event was changed into something JSON cannot carry, or
                ``value_serializer`` failed.
            ConfigurationError: the topic name is illegal.
            ProducerClosedError: the producer is closed.
            ReentrantCallError: called from a delivery callback, such as a done-callback of a future of
                :meth:`send`, in which only :meth:`send` may be used.
            TypeError: this is no :class:`WorkflowEvent`.
        """
        return self.deliver(event, topic, timeout).delivered

    def deliver(
        self, event: WorkflowEvent, topic: str | None = None, timeout: float | None = None
    ) -> DeliveryReport:
        """Do what :meth:`publish_event` does, and return the whole report: partition and offset, or error.

        Raises:
            KafkaTimeoutError: and the others, as :meth:`publish_event` does.
        """
        self._client.check_may_wait()
        started = monotonic()
        deadline = None if timeout is None else started + timeout
        record, target = self._prepare(event, topic)
        pending = PendingEvent(event.event_id, target, self._client.reporter)
        try:
            self._client.enqueue(record, target, pending, event.event_id, deadline)
        except KafkaTimeoutError:
            raise
        except KafkaError as error:  # e.g. a topic the client already knows it may not write to
            return self._client.reporter.failure(event.event_id, target, error)
        if not self._client.wait(pending, deadline):
            pending.late = True
        if pending.report is None:
            raise timeout_error(event.event_id, timeout, self._client.trouble_since(started))
        if isinstance(pending.report.error, KafkaTimeoutError):  # a signal handler cut into its report
            raise pending.report.error
        return pending.report

    def publish_events(
        self, events: Iterable[WorkflowEvent], topic: str | None = None, timeout: float | None = None
    ) -> list[DeliveryReport]:
        """Publish many events at once, pipelined, and wait for all reports.

        Args:
            events: the events; those of one run keep their order.
            topic: where to. Default: the producer's topic.
            timeout: how long to wait for all of them, in seconds. Default ``None``: until the last report.

        Returns:
            One report per event, in the order of ``events``. What went wrong with an event is its report's
            ``error``: a :class:`KafkaTimeoutError` where ``timeout`` ran out, an :class:`EventTooLargeError`
            or :class:`EventSerializationError` where it could not be sent at all.

        Raises:
            ConfigurationError, ProducerClosedError, TypeError: as :meth:`publish_event`, before anything is
                sent.
            KafkaError: a signal handler cut in and what it raised was lost; what was sent before goes on.
        """
        self._client.check_may_wait()
        batch = list(events)
        for index, event in enumerate(batch):
            if not isinstance(event, WorkflowEvent):
                raise TypeError(
                    f"events[{index}] is a {type(event).__name__}, not a WorkflowEvent: none was sent"
                )
        target = self._check_usable(topic)
        started = monotonic()
        deadline = None if timeout is None else started + timeout
        pending = PendingBatch(batch, target, self._client.reporter)
        try:
            self._enqueue_all(batch, target, pending, deadline)
        except BaseException:  # a signal handler's: what is under way is still delivered, and logged if not
            pending.all_enqueued()
            self._client.serve(pending)
            raise
        pending.all_enqueued()
        self._client.wait(pending, deadline)
        return pending.results(timeout, self._client.trouble_since(started))

    def send(self, event: WorkflowEvent, topic: str | None = None) -> Future[DeliveryReport]:
        """Send an event without waiting; never blocks.

        Args:
            event: the event.
            topic: where to. Default: the producer's topic.

        Returns:
            A future of the delivery report. Failure is a report with an ``error``, not an exception, and is
            logged. A full local queue gives a :class:`KafkaQueueFullError` as the report's ``error``.

        Raises:
            EventTooLargeError: and the others, as :meth:`publish_event`, but for a timeout.
        """
        future: Future[DeliveryReport] = Future()
        future.set_running_or_notify_cancel()  # what is on its way cannot be cancelled
        try:
            self.submit(event, topic, future.set_result)
        except KafkaQueueFullError as error:
            future.set_result(self._client.reporter.failure(event.event_id, topic or self._topic, error))
        return future

    def submit(
        self, event: WorkflowEvent, topic: str | None, on_report: Callable[[DeliveryReport], None]
    ) -> None:
        """Send an event without waiting and have ``on_report`` called with its report, from another thread.

        The form of :meth:`send` for other schedulers of work, such as an event loop. ``on_report`` must be
        quick and must not raise.

        Raises:
            KafkaQueueFullError: librdkafka's queue has no room; the event was not sent.
            EventTooLargeError: and the others, as :meth:`send` does.
        """
        record, target = self._prepare(event, topic)
        pending = PendingEvent(event.event_id, target, self._client.reporter, on_report)
        try:
            self._client.produce(record, target, pending)
        except KafkaQueueFullError:
            raise
        except KafkaError as error:  # e.g. a topic the client already knows it may not write to
            on_report(self._client.reporter.failure(event.event_id, target, error))
        else:
            self._client.serve(pending)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent so far has its report.

        Args:
            timeout: how long to wait, in seconds. Default ``None``: as long as it takes, which is bounded by
                ``delivery_timeout_ms``.

        Raises:
            KafkaTimeoutError: ``timeout`` ran out with events still under way.
            ProducerClosedError: the producer is closed.
        """
        self._client.check_may_wait()
        self._client.check_usable()
        if left := self._client.flush(_deadline(timeout)):
            raise KafkaTimeoutError(
                f"{left} event(s) still had no delivery report after {timeout} s; they stay under way"
            )

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what is under way and give the client up. Calling it again does nothing.

        Args:
            timeout: how long to wait for what is under way, in seconds. Default ``None``: as long as it
                takes, which is bounded by ``delivery_timeout_ms``.

        Returns:
            Whether everything was delivered or had failed before; ``False`` where events were given up, each
            logged with its id.
        """
        return self._client.close(timeout)

    def abandon(self) -> None:
        """Give up what is under way, at once and without waiting.

        For signal handlers: whoever waits for an event gets its report, a failure, and the producer stays
        usable.
        """
        self._client.abandon()

    @property
    def is_open(self) -> bool:
        """Whether there is a librdkafka client: not after a fork, until the child uses the producer."""
        return self._client.is_open

    def open(self) -> None:
        """Make the librdkafka client now, where the first use would do it.

        Raises:
            KafkaAuthenticationError: ``oauth_cb`` gave no token.
            ProducerClosedError: the producer is closed.
        """
        self._client.check_usable()

    def check_connection(self, timeout: float) -> None:
        """Prove that a broker answers.

        Args:
            timeout: the bound, in seconds.

        Raises:
            KafkaAuthenticationError: at once, where the broker refuses the credentials or the certificate.
            KafkaConnectionError: no broker answered within ``timeout``.
        """
        self._client.check_connection(timeout)

    def trouble_since(self, moment: float) -> str | None:
        """Return what the client last had trouble with since a moment, in seconds of the monotonic clock."""
        return self._client.trouble_since(moment)

    def _enqueue_all(
        self, batch: list[WorkflowEvent], target: str, pending: PendingBatch, deadline: float | None
    ) -> None:
        for start in range(0, len(batch), _ENCODED_AT_ONCE):
            records = self._encoded(batch, start, pending)
            if self._value_serializer is not None:
                records = self._all_serialized(self._value_serializer, records, batch, target, pending)
            accepted = self._client.produce_many(records, target, pending.settle)
            for index, record in records[accepted:]:
                on_delivery = partial(pending.settle, index)
                try:
                    self._client.enqueue(record, target, on_delivery, batch[index].event_id, deadline)
                except WorkflowEventsError as error:
                    pending.refuse(index, error)

    def _encoded(
        self, batch: list[WorkflowEvent], start: int, pending: PendingBatch
    ) -> list[tuple[int, KafkaRecord]]:
        records = []
        for index in range(start, min(start + _ENCODED_AT_ONCE, len(batch))):
            try:
                records.append((index, encode(batch[index], self._mode, max_bytes=self._max_event_bytes)))
            except WorkflowEventsError as error:
                pending.refuse(index, error)
        return records

    def _prepare(self, event: WorkflowEvent, topic: str | None) -> tuple[KafkaRecord, str]:
        if not isinstance(event, WorkflowEvent):
            raise TypeError(f"expected a WorkflowEvent, got {type(event).__name__}: build one from your data")
        target = self._check_usable(topic)
        record = encode(event, self._mode, max_bytes=self._max_event_bytes)
        if self._value_serializer is not None:
            record = self._serialized(self._value_serializer, record, event, target)
        return record, target

    def _serialized(
        self, serializer: ValueSerializer, record: KafkaRecord, event: WorkflowEvent, topic: str
    ) -> KafkaRecord:
        try:
            value: object = serializer(record.value, topic)
        except WorkflowEventsError:
            raise
        except Exception as error:  # the user's code; what it says stays its own, as the cause
            raise EventSerializationError(
                f"event {printable(event.event_id)} was not sent: value_serializer raised "
                f"{type(error).__name__}"
            ) from error
        if not isinstance(value, bytes):
            raise EventSerializationError(
                f"event {printable(event.event_id)} was not sent: value_serializer returned a "
                f"{type(value).__name__}, not bytes"
            )
        record = record._replace(value=value)
        if record.size_bytes > self._max_event_bytes:
            raise EventTooLargeError(event.event_id, record.size_bytes, self._max_event_bytes)
        return record

    def _all_serialized(
        self,
        serializer: ValueSerializer,
        records: list[tuple[int, KafkaRecord]],
        batch: list[WorkflowEvent],
        topic: str,
        pending: PendingBatch,
    ) -> list[tuple[int, KafkaRecord]]:
        serialized = []
        for index, record in records:
            try:
                serialized.append((index, self._serialized(serializer, record, batch[index], topic)))
            except WorkflowEventsError as error:
                pending.refuse(index, error)
        return serialized

    def _check_usable(self, topic: str | None) -> str:
        self._client.check_usable()
        if topic is None:
            return self._topic
        if topic not in self._legal_topics:
            self._legal_topics.add(check_topic(topic))
        return topic


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout
