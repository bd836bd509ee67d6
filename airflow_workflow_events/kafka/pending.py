"""Events under way: what librdkafka calls with their delivery reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import confluent_kafka

from airflow_workflow_events.errors import KafkaError, KafkaTimeoutError, WorkflowEventsError, printable
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.polling import Waitable
from airflow_workflow_events.kafka.reports import DeliveryReport, error_text, translate

log: logging.Logger = logging.getLogger(__name__)

_PURGED = frozenset({"_PURGE_QUEUE", "_PURGE_INFLIGHT"})


class Reporter:
    """Turns what librdkafka says into reports, logs failures, and knows what nobody waits for.

    Args:
        config: librdkafka's configuration, whose secrets are kept out of every text.
        failure_log_level: at which an event that was not delivered is logged.
    """

    def __init__(self, config: Mapping[str, Any], failure_log_level: int) -> None:
        self._config = config
        self._failure_log_level = failure_log_level
        self.unwaited: set[Waitable] = set()
        self.fatal: confluent_kafka.KafkaError | None = None
        """Why the client sends nothing any more, once it does not."""
        self.refusal: KafkaError | None = None
        """Why the brokers refuse the client, where what was under way is given up for that."""
        self.has_delivered: bool = False
        """Whether the broker has confirmed an event; set back by who takes note of it."""

    def report(self, event_id: str, topic: str, error: Any, message: Any) -> DeliveryReport:
        """Return the report of one event from the arguments of librdkafka's delivery callback."""
        if error is not None:
            return self.failure(event_id, topic, self.error(error, topic))
        self.has_delivered = True
        partition, offset = message.partition(), message.offset()
        if offset is None or offset < 0:  # acks=0: the broker says nothing
            partition = offset = None
        if log.isEnabledFor(logging.DEBUG):
            if offset is None:
                log.debug(
                    "event %s was sent to %s; with acks=0 nobody confirms it", printable(event_id), topic
                )
            else:
                log.debug(
                    "event %s was delivered to %s [%s] at offset %s",
                    printable(event_id),
                    topic,
                    partition,
                    offset,
                )
        return DeliveryReport(event_id, topic, partition, offset)

    def failure(self, event_id: str, topic: str, reason: WorkflowEventsError) -> DeliveryReport:
        """Log that an event was not delivered and return its report."""
        log.log(
            self._failure_log_level,
            "event %s was not delivered to %s: %s",
            printable(event_id),
            topic,
            reason,
        )
        return DeliveryReport(event_id, topic, error=reason)

    def error(self, error: confluent_kafka.KafkaError, topic: str | None = None) -> KafkaError:
        """Return librdkafka's error, about an event for a topic, as one of this package's."""
        if self.refusal is not None and error.name() in _PURGED:
            refusal = self.refusal
            return type(refusal)(str(refusal), name=refusal.name, retriable=refusal.retriable)
        fatal = self.fatal
        if fatal is not None and error.name() in {fatal.name(), "_FATAL", *_PURGED}:
            error = fatal
        return translate(error, self.safe_text(error), topic=topic)

    def safe_text(self, error: confluent_kafka.KafkaError) -> str:
        """Return an error's text in one line, without the secrets of the configuration."""
        return error_text(error, self._config)


def _interrupted() -> KafkaTimeoutError:
    return KafkaTimeoutError(
        "taking the delivery report was interrupted, so the outcome is unknown; "
        "publishing the event again is safe for consumers that dedupe by event_id"
    )


class PendingEvent(Waitable):
    """One event under way.

    Args:
        event_id: its id.
        topic: where it goes.
        reporter: makes its report.
        on_report: called with the report, in the thread that polls. Default: nothing.
    """

    __slots__ = ("event_id", "late", "on_report", "report", "reporter", "topic")

    def __init__(
        self,
        event_id: str,
        topic: str,
        reporter: Reporter,
        on_report: Callable[[DeliveryReport], None] | None = None,
    ) -> None:
        super().__init__()
        self.event_id: str = event_id
        self.topic: str = topic
        self.reporter: Reporter = reporter
        self.on_report: Callable[[DeliveryReport], None] | None = on_report
        self.report: DeliveryReport | None = None
        self.late: bool = False

    def __call__(self, error: Any, message: Any) -> None:
        """Take librdkafka's delivery report."""
        report = DeliveryReport(self.event_id, self.topic, error=_interrupted())
        try:
            report = self.reporter.report(self.event_id, self.topic, error, message)
            if self.late and report.delivered:
                log.warning("event %s was delivered after its caller's timeout", printable(self.event_id))
        finally:  # whatever a signal handler raises, nobody waits in vain
            self._settle(report)

    def lose(self) -> None:
        """Settle with an unknown outcome: a signal handler raised before the report could be taken."""
        if not self.done:
            self._settle(self.reporter.failure(self.event_id, self.topic, _interrupted()))

    def _settle(self, report: DeliveryReport) -> None:
        self.report = report
        self.reporter.unwaited.discard(self)
        self.finish()
        self._tell(report)

    def _tell(self, report: DeliveryReport) -> None:
        if self.on_report is None:
            return
        try:
            self.on_report(report)
        except Exception as error:
            log.error(
                "a callback for event %s raised %s",
                printable(self.event_id),
                type(error).__name__,
                exc_info=error,
            )


class PendingBatch(Waitable):
    """Many events under way together; done when each has its report.

    Args:
        events: the events.
        topic: where they go.
        reporter: makes their reports.
    """

    __slots__ = ("_answered", "_complete", "_events", "_refused", "_reporter", "_reports", "_topic")

    def __init__(
        self,
        events: Sequence[WorkflowEvent],
        topic: str,
        reporter: Reporter,
    ) -> None:
        super().__init__()
        self._events = events
        self._topic = topic
        self._reporter = reporter
        self._reports: list[DeliveryReport | None] = [None] * len(events)
        # Two counters, as two threads count: callbacks, one at a time, and the caller that enqueues.
        self._answered = 0
        self._refused = 0
        self._complete = False

    def refuse(self, index: int, reason: WorkflowEventsError) -> None:
        """Settle an event that could not be enqueued."""
        self._reports[index] = self._reporter.failure(self._events[index].event_id, self._topic, reason)
        self._refused += 1

    def all_enqueued(self) -> None:
        """Say that no further event will be enqueued or refused."""
        self._complete = True
        self._finish_if_done()

    def results(self, timeout: float | None, trouble: str | None) -> list[DeliveryReport]:
        """Return a report for every event; one without a report yet gets a ``KafkaTimeoutError``.

        Args:
            timeout: how long was waited, in seconds.
            trouble: the client's last error, if there was one.
        """
        if self.done and None not in self._reports:
            return cast("list[DeliveryReport]", self._reports)
        return [
            report
            or DeliveryReport(
                event.event_id, self._topic, error=timeout_error(event.event_id, timeout, trouble)
            )
            for event, report in zip(self._events, self._reports, strict=True)
        ]

    def settle(self, index: int, error: Any, message: Any) -> None:
        """Take librdkafka's delivery report of the event at ``index``."""
        try:
            self._reports[index] = self._reporter.report(
                self._events[index].event_id, self._topic, error, message
            )
        finally:  # whatever a signal handler raises, nobody waits in vain
            self._answered += 1
            if self._complete:
                self._finish_if_done()

    def lose(self) -> None:
        """Settle what has no report with an unknown outcome: a signal handler raised as it was taken."""
        if self.done:
            return
        for index, report in enumerate(self._reports):
            if report is None:
                self._reports[index] = self._reporter.failure(
                    self._events[index].event_id, self._topic, _interrupted()
                )
        self._reporter.unwaited.discard(self)
        self.finish()

    def _finish_if_done(self) -> None:
        if self._complete and self._answered + self._refused == len(self._events):
            self._reporter.unwaited.discard(self)
            self.finish()


def timeout_error(event_id: str, timeout: float | None, client_error: str | None = None) -> KafkaTimeoutError:
    """Return the error of an event whose report did not come in time.

    Args:
        event_id: its id.
        timeout: how long was waited, in seconds.
        client_error: the client's last trouble, which is the likely reason. Default: none.
    """
    reason = f" (last client error: {client_error})" if client_error else ""
    return KafkaTimeoutError(
        f"event {printable(event_id)} had no delivery report after {_seconds(timeout)} s{reason}; it may "
        "still be delivered, and publishing it again is safe for consumers that dedupe by event_id"
    )


def _seconds(timeout: float | None) -> str:
    return "?" if timeout is None else f"{timeout:g}"
