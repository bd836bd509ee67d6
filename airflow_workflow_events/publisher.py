"""The one way in for whoever must never fail or be late: callbacks and notifiers.

An attempt is bounded as a whole, connection lookup included. It runs in a thread of its own, because a lookup
in a secrets backend cannot be interrupted; a thread that is still busy at the bound is left behind, and dies
with the process without delaying its exit.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import ConfigurationError, printable
from airflow_workflow_events.events.model import WorkflowEvent, check_event_type
from airflow_workflow_events.kafka.config import check_topic
from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from airflow_workflow_events.lifecycle.failures import QUESTION_SECONDS
from airflow_workflow_events.lifecycle.reading import run_identity
from airflow_workflow_events.lifecycle.translate import Outcome, lifecycle_event
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.relaying import METRICS, HandOver, outbox_of, route_to
from airflow_workflow_events.settings import MAX_TIMEOUT_SECONDS, Settings

if TYPE_CHECKING:
    from airflow_workflow_events.hooks import WorkflowEventHook
    from airflow_workflow_events.kafka.reports import DeliveryReport

log: logging.Logger = logging.getLogger(__name__)

# Delivery ends a little before the bound, so that the log can say what it was waiting for.
_SHARE_OF_BOUND = 0.95


def copy_of_data(data: object) -> dict[str, Any]:
    """Return a copy of ``data``, which is empty where there is none.

    Raises:
        ConfigurationError: it is no mapping.
    """
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise ConfigurationError(
            f"data is a {type(data).__name__}: use a mapping of names to values, e.g. {{'rows': 42}}"
        )
    return dict(data)


@dataclass(frozen=True, slots=True)
class Publication:
    """How a callback or a notifier publishes the event of the context it gets.

    Args:
        emitted_by: ``callback`` or ``notifier``.
        event_type: what to call it. Default: what the context says happened.
        data: added to ``payload.data``.
        topic: where to. Default: the connection's topic.
        environment: Default: the connection's, or ``[workflow_events] environment``.
        conn_id: the connection. Default: ``[workflow_events] conn_id``.
        timeout_seconds: the bound on everything. Default: ``[workflow_events] callback_timeout_seconds``.

    Raises:
        ConfigurationError: ``data`` uses a name of the lifecycle's own, the event type or the topic is
            illegal, or the timeout is not above 0.
    """

    emitted_by: str
    event_type: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)  # Airflow prints callbacks
    topic: str | None = None
    environment: str | None = None
    conn_id: str | None = None
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if taken := sorted(set(self.data) & set(LIFECYCLE_FIELDS)):
            raise ConfigurationError(f"data uses the lifecycle's own names {', '.join(taken)}: rename them")
        if self.event_type is not None:
            check_event_type(self.event_type)
        if self.topic is not None:
            check_topic(self.topic)
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds <= MAX_TIMEOUT_SECONDS:
            raise ConfigurationError(
                f"timeout_seconds is {self.timeout_seconds}: "
                f"use a number above 0, at most {MAX_TIMEOUT_SECONDS}"
            )

    def publish(self, context: Mapping[str, Any], outcome: Outcome | None = None) -> bool:
        """Publish the event of a context. Never raises and never outlasts the bound.

        Args:
            context: what Airflow gave the callback.
            outcome: ``"success"`` or ``"failure"`` where the callback itself says so. Default ``None``.

        Returns:
            Whether the outbox has accepted the event, or the broker confirmed it in time; otherwise the
            failure is logged and counted.
        """
        try:
            # Late, as it loads Kafka's clients: whoever parses a DAG file with a callback needs none.
            from airflow_workflow_events.hooks import WorkflowEventHook

            settings = Settings.load()
            for mistake in settings.mistakes:  # a task's log has nothing of what its component said at start
                log.warning("%s", mistake)
            hook = WorkflowEventHook(self.conn_id or settings.conn_id)
            timeout_seconds = self.timeout_seconds or settings.callback_timeout_seconds
            attempt = _Attempt(self, hook, context, outcome, settings, monotonic() + timeout_seconds)
            # Airflow's logging and the current task are kept in context variables.
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(attempt.run,),
                name="workflow-events-publish",
                daemon=True,
            ).start()
        except Exception as error:  # noqa: BLE001 - a wrong option, or a host out of threads
            log.error("%s was not published by the %s: %s", self.subject(context), self.emitted_by, error)
            METRICS.incr(names.FAILED, tags={"emitted_by": self.emitted_by})
            return False
        attempt.finished.wait(timeout_seconds)
        attempt.log_outcome(timeout_seconds)
        if attempt.delivered or not attempt.accepted:  # what the outbox accepts is counted there
            metric = names.PUBLISHED if attempt.delivered else names.FAILED
            METRICS.incr(metric, tags={"emitted_by": self.emitted_by})
        return attempt.delivered or attempt.accepted

    def subject(self, context: Mapping[str, Any]) -> str:
        """Say for the log what the event would have been about, where it could not be built."""
        what = f"an event ({self.event_type})" if self.event_type else "an event"
        try:
            identity = run_identity(context)
        except Exception:  # noqa: BLE001 - a context may hold anything
            return what
        return printable(f"{what} of {identity.workflow_id}/{identity.workflow_run_id}")


class _Attempt:
    """One attempt, and what is known of it, also to the thread that gave up waiting for it."""

    def __init__(
        self,
        publication: Publication,
        hook: WorkflowEventHook,
        context: Mapping[str, Any],
        outcome: Outcome | None,
        settings: Settings,
        deadline: float,
    ) -> None:
        self._publication = publication
        self._hook = hook
        self._context = context
        self._outcome: Outcome | None = outcome
        self._settings = settings
        self._deadline = deadline
        self._event: WorkflowEvent | None = None
        self._report: DeliveryReport | None = None
        self._error: BaseException | None = None
        self._hand_over: HandOver | None = None
        self._sent = False
        self.finished = threading.Event()

    @property
    def delivered(self) -> bool:
        if self._hand_over is not None and self._hand_over.delivered:
            return True
        return self._report is not None and self._report.delivered

    @property
    def accepted(self) -> bool:
        return self._hand_over is not None and self._hand_over.accepted

    def run(self) -> None:
        """Build the event and publish it; what goes wrong is kept for the log."""
        try:
            outbox = self._outbox()
            if outbox is None or not self._hand_to(outbox):
                self._publish_directly()
        # Whatever it is: no signal arrives in this thread, and the caller would wait in vain for its reason.
        except BaseException as error:  # noqa: BLE001 - a callback must never raise; it is logged and counted
            self._error = error
        finally:
            self.finished.set()

    def _outbox(self) -> Outbox | None:
        try:
            return outbox_of(self._settings)
        except ConfigurationError as error:  # a wrong option is no reason to lose the event
            log.error("no outbox is used: %s", error)
            return None

    def _hand_to(self, outbox: Outbox) -> bool:
        """Put the event into the outbox, attempt it if nobody else does; return whether it was accepted."""
        publication = self._publication
        # Without asking the connection, whose environment the relay fills in: a look-up can take long.
        event = self._event = self._build(
            publication.environment or self._settings.environment, min(QUESTION_SECONDS, self._remaining())
        )
        self._hand_over = HandOver(outbox, publication.emitted_by)
        if not self._hand_over.accept(
            event,
            route_to(self._settings, publication.conn_id, publication.topic),
            environment_is_default=publication.environment is None,
        ):
            return False
        self._hand_over.deliver_unless_relayed(event, monotonic() + self._remaining())
        return True

    def _publish_directly(self) -> None:
        from airflow_workflow_events.kafka.last_publish import TOPIC_PATIENCE_MS, publish_and_close

        publication, hook = self._publication, self._hook
        environment = publication.environment or hook.environment
        # One event through a new client takes 3 ms this way, 56 ms with a proof of the connection, and 507 ms
        # with idempotence (librdkafka asks for a producer id before it has a connection, and again 500 ms
        # later). A batch repeated after a lost acknowledgement carries the same event_id.
        # The producer comes first: building the event may ask Airflow's supervisor a question, and while that
        # waits for its answer no other can be asked.
        seconds = self._remaining()
        producer = hook.get_producer(
            connect=False,
            enable_idempotence=False,
            delivery_timeout_ms=max(int(seconds * 1000), 1),
            failure_log_level=logging.DEBUG,  # log_outcome says it
            config={"topic.metadata.propagation.max.ms": min(TOPIC_PATIENCE_MS, max(int(seconds * 500), 1))},
        )
        try:
            # Airflow's answer is worth waiting for, but not the event.
            self._event = event = self._build(environment, (self._deadline - monotonic()) / 2)
            self._sent = True
            self._report = publish_and_close(producer, event, publication.topic, self._remaining())
        finally:
            producer.close(timeout=0)

    def _build(self, environment: str, patience_seconds: float) -> WorkflowEvent:
        publication = self._publication
        return lifecycle_event(
            self._context,
            publication.event_type,
            self._settings,
            outcome=self._outcome,
            environment=environment,
            emitted_by=publication.emitted_by,
            data=publication.data,
            patience_seconds=patience_seconds,
        )

    def _remaining(self) -> float:
        """Seconds left for delivery."""
        return max((self._deadline - monotonic()) * _SHARE_OF_BOUND, 0.001)

    def log_outcome(self, timeout_seconds: float) -> None:
        """Say in the log what became of the event, by its id."""
        event, report = self._event, self._report
        what = self._publication.subject(self._context)
        if event is not None:
            what = printable(f"event {event.event_id} ({event.event_type} of {event.ordering_key})")
        by = self._publication.emitted_by
        reason = self._error if report is None else report.error
        if self._hand_over is not None and self.accepted:
            level = logging.INFO if self.delivered or self._hand_over.relayed else logging.WARNING
            log.log(level, "%s %s", what, self._hand_over.whereabouts)
        elif report is not None and report.delivered:
            log.info("%s published to %s [%s] at %s", what, report.topic, report.partition, report.offset)
        elif report is not None:
            log.error(
                "%s was not published by the %s to %s: %s: %s",
                what,
                by,
                report.topic,
                type(reason).__name__,
                reason,
            )
        elif reason is not None:
            log.error("%s was not published by the %s: %s: %s", what, by, type(reason).__name__, reason)
        else:
            known = "it may still be delivered" if self._sent else "it was not sent"
            log.error(
                "%s was not published by the %s: gave up after %g s; %s", what, by, timeout_seconds, known
            )
