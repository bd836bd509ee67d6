"""The operator: a task that publishes an event and fails if Kafka did not take it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_workflow_events.compat import BaseOperator

from airflow_workflow_events.errors import ConfigurationError, KafkaError, OutboxError
from airflow_workflow_events.events.model import EventType, check_event_type
from airflow_workflow_events.lifecycle.reading import run_identity, text_or_none
from airflow_workflow_events.lifecycle.translate import published_event
from airflow_workflow_events.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_workflow_events.events.model import WorkflowEvent
    from airflow_workflow_events.hooks import WorkflowEventHook
    from airflow_workflow_events.kafka.producer import WorkflowEventProducer
    from airflow_workflow_events.kafka.reports import DeliveryReport


# What the listener publishes of every run.
_OF_RUNS = frozenset({EventType.WORKFLOW_STARTED, EventType.WORKFLOW_COMPLETED, EventType.WORKFLOW_FAILED})


class PublishWorkflowEventOperator(BaseOperator):
    """Publishes one workflow event; the task succeeds only after the broker confirmed it.

    A delivery that fails or times out fails the task, so that Airflow's retries apply. Every try publishes
    under the same ``event_id``, so a retry after an unknown outcome is no second event to consumers that
    dedupe by it. A template rendered to nothing stands for the default.

    Args:
        event_type: what happened: a domain's own dotted type, e.g. ``"orders.loaded"``, or an
            :class:`~airflow_workflow_events.EventType`. What becomes of the task's own run, such as
            ``workflow.completed``, is better published by a callback or the listener, which know it: with
            the listener on it is on the topic twice, and the task warns of it. Templated.
        data: ``payload.data``: a mapping, or a pydantic model or dataclass, with templates at any depth of
            mappings and sequences. What looks like a secret in it is masked, and named in
            ``metadata.redacted``. Default: empty. Templated.
        workflow_id: Default: the DAG's id. Templated.
        workflow_run_id: Default: the run's id. Templated.
        topic: where to. Default: the connection's topic. Templated.
        environment: Default: the connection's, or ``[workflow_events] environment``. Templated.
        workflow_events_conn_id: the connection. Default ``None``: ``[workflow_events] conn_id``. Templated.
        timeout: how long to wait for the broker's confirmation, in seconds or as a ``timedelta``. Default
            ``None``: the connection's delivery timeout.
        on_failure: what a delivery that fails or times out means. ``"fail"``, the default, fails the task.
            ``"outbox"`` puts the event into the outbox of ``[workflow_events] outbox_url``: the task
            succeeds, and a relay delivers the event under the same id.

    Returns:
        ``{"event_id", "topic", "partition", "offset"}`` as the task's XCom; the last two are ``None`` where
        the event is in the outbox.

    Raises:
        ConfigurationError: the connection or a parameter cannot be used.
        pydantic.ValidationError: ``data`` has a value that JSON cannot carry; the message names its path.
        KafkaError: the broker could not be reached, or refused the event.
        KafkaTimeoutError: the confirmation did not come in time.
    """

    template_fields: Sequence[str] = (
        "event_type",
        "data",
        "workflow_id",
        "workflow_run_id",
        "topic",
        "environment",
        "workflow_events_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json"}
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        event_type: EventType | str,
        data: Any = None,
        workflow_id: str | None = None,
        workflow_run_id: str | None = None,
        topic: str | None = None,
        environment: str | None = None,
        workflow_events_conn_id: str | None = None,
        timeout: float | timedelta | None = None,
        on_failure: Literal["fail", "outbox"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_failure not in {"fail", "outbox"}:
            raise ConfigurationError(f"on_failure is {on_failure!r}: use 'fail' or 'outbox'")
        if "{" not in str(event_type):  # no template: wrong here, wrong for ever
            check_event_type(event_type)
        self.event_type = event_type
        self.data = data
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self.topic = topic
        self.environment = environment
        self.workflow_events_conn_id = workflow_events_conn_id
        self.timeout: float | None = _seconds(timeout)
        self.on_failure = on_failure
        self._producer: WorkflowEventProducer | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish the event and return where it went."""
        return self.publish(context, self.data)

    def publish(self, context: Mapping[str, Any], data: Any) -> dict[str, Any]:
        """Publish an event with this ``data`` and return where it went; raises as the class says."""
        # Late, as it loads Kafka's clients: whoever parses a DAG file needs none.
        from airflow_workflow_events.hooks import WorkflowEventHook
        from airflow_workflow_events.kafka.reports import DeliveryReport

        # A DAG that renders templates as native objects makes a number of "{{ ds_nodash }}".
        hook = WorkflowEventHook(text_or_none(self.workflow_events_conn_id))
        settings = Settings.load()
        if self.on_failure == "outbox" and settings.outbox_url is None:
            raise ConfigurationError("on_failure='outbox' needs an outbox: set [workflow_events] outbox_url")
        event = published_event(
            context,
            str(self.event_type),
            settings,
            data=data,
            environment=text_or_none(self.environment) or hook.environment,
            workflow_id=text_or_none(self.workflow_id),
            workflow_run_id=text_or_none(self.workflow_run_id),
        )
        self._warn_of_second(event, context, settings)
        if event.metadata.redacted:
            self.log.info("Masked, as it looks like a secret: %s.", ", ".join(event.metadata.redacted))
        try:
            report = self._deliver(hook, event)
        except KafkaError as error:
            if not (self.on_failure == "outbox" and self._accepted(hook, event, settings, error)):
                raise
            report = DeliveryReport(event.event_id, text_or_none(self.topic) or hook.topic)
        else:
            self.log.info("Event %s (%s) is on %s.", event.event_id, event.event_type, report.topic)
        return {
            "event_id": report.event_id,
            "topic": report.topic,
            "partition": report.partition,
            "offset": report.offset,
        }

    def _warn_of_second(self, event: WorkflowEvent, context: Mapping[str, Any], settings: Settings) -> None:
        own = run_identity(context)
        about = (event.workflow_id, event.workflow_run_id)
        if (
            settings.listener
            and event.event_type in _OF_RUNS
            and about == (own.workflow_id, own.workflow_run_id)
            and settings.selection.wants(event.event_type, own.workflow_id, None)
        ):
            self.log.warning(
                "The listener publishes %s of this run as well, under another id: use a type of your own, "
                "such as %s.ready.",
                event.event_type,
                own.workflow_id,
            )

    def _deliver(self, hook: WorkflowEventHook, event: WorkflowEvent) -> DeliveryReport:
        from airflow_workflow_events.kafka.last_publish import publish_and_close

        self._producer = hook.get_producer()
        # What has no report after a timeout or an interrupt is given up: waiting for it could take the
        # connection's delivery timeout, longer than the task's own.
        report = publish_and_close(self._producer, event, text_or_none(self.topic), self.timeout)
        if report.error is not None:
            raise report.error
        return report

    def _accepted(
        self, hook: WorkflowEventHook, event: WorkflowEvent, settings: Settings, error: KafkaError
    ) -> bool:
        from airflow_workflow_events.relaying import HandOver, outbox_of, route_to

        outbox = outbox_of(settings)
        route = route_to(settings, hook.workflow_events_conn_id, text_or_none(self.topic))
        if outbox is None:
            return False
        hand_over = HandOver(outbox, "operator")
        if not hand_over.accept(event, route, environment_is_default=False):
            return False
        with suppress(OutboxError):  # the event is in it
            hand_over.look()
        self.log.warning(
            "Kafka did not take event %s (%s), which %s: %s",
            event.event_id,
            event.event_type,
            hand_over.whereabouts,
            error,
        )
        return True

    def on_kill(self) -> None:
        """Give up what is under way, so that a killed task ends at once."""
        if self._producer is not None:
            self._producer.abandon()


def _seconds(timeout: object) -> float | None:
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"timeout is {timeout!r}: use a number of seconds above 0, or a timedelta")
    return seconds
