"""The sensor: a task that waits for a workflow event."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.filters import Names
from airflow_workflow_events.events.model import EventType
from airflow_workflow_events.lifecycle.reading import text_or_none
from airflow_workflow_events.provider_info import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_workflow_events.triggers import WorkflowEventTrigger

# Without a trigger, a poke ends when no message came for so long.
_END_OF_TOPIC_MS = 1_000


class WorkflowEventSensor(BaseSensorOperator):
    """Waits until a workflow event arrives, and pushes it.

    By default the task is deferred: it waits in the triggerer and takes no worker slot. All sensors that wait
    on one connection and topic share one consumer there.

    What came before the sensor started counts as well, from ``since`` on: by default from the start of its
    own DAG run, so that neither the order of the two matters nor an event of yesterday is taken for today's.
    What counts is when the record was written to the topic.

    Args:
        workflow_id: name or glob (``*``, ``?``, ``[seq]``), or several of which one must match. Default
            ``None``: any. Templated.
        workflow_run_id: likewise. Templated.
        event_type: likewise. Default: ``"workflow.completed"``. Templated.
        source: likewise. Default: any. Templated.
        environment: likewise, of ``metadata.environment``. Default: any. Templated.
        data: conditions on ``payload.data``: a dotted path to the value it must have, or to operators, e.g.
            ``{"order.country": "DE", "rows": {"$gte": 100}}``; see
            :class:`~airflow_workflow_events.events.filters.EventFilter`. Templated.
        fail_on: event types of the same workflow, run, source and environment that fail the task at once,
            e.g. ``"workflow.failed"``: without retries, with the event's error in the message. Default: none.
            Templated.
        since: what is too old to count: a ``datetime`` with a time zone, its ISO 8601 text, or a
            ``timedelta`` before the start of the sensor's run. Default: the start of the run. Templated.
        topic: the topic. Default: the connection's. Templated.
        workflow_events_conn_id: the connection. Default: ``"workflow_events_default"``. Templated.
        deferrable: whether to wait in the triggerer. Default: ``True``. Otherwise the topic is read anew from
            ``since`` at every poke.
        **kwargs: as for every sensor: ``timeout``, ``soft_fail``, ``poke_interval``, ``mode``, ...

    Returns:
        The event as JSON, as the task's XCom.

    Raises:
        ConfigurationError: a parameter cannot be used; the message names it.
        AirflowFailException: an event of ``fail_on`` came.
        AirflowSensorTimeout: nothing came within ``timeout``.
    """

    template_fields: Sequence[str] = (
        "workflow_id",
        "workflow_run_id",
        "event_type",
        "source",
        "environment",
        "data",
        "fail_on",
        "since",
        "topic",
        "workflow_events_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json"}
    ui_color = "#e8f0fa"

    def __init__(
        self,
        *,
        workflow_id: Names = None,
        workflow_run_id: Names = None,
        event_type: Names = EventType.WORKFLOW_COMPLETED.value,
        source: Names = None,
        environment: Names = None,
        data: Mapping[str, Any] | None = None,
        fail_on: Names = None,
        since: dt.datetime | dt.timedelta | str | None = None,
        topic: str | None = None,
        workflow_events_conn_id: str = DEFAULT_CONNECTION,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self.event_type = event_type
        self.source = source
        self.environment = environment
        self.data = data
        self.fail_on = fail_on
        self.since = since
        self.topic = topic
        self.workflow_events_conn_id = workflow_events_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait, in the triggerer or here, and return the event."""
        if not self.deferrable:
            return super().execute(context)
        trigger = self._trigger(context)
        self.log.info("Waiting for %s since %s.", trigger.awaited, trigger.start_from)
        return self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=dt.timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return the event that the trigger has found, or fail for it."""
        return self._judge(event["event"], failed=event["failed"])

    def poke(self, context: Context) -> PokeReturnValue:
        """Read the topic from ``since`` to its end."""
        from airflow_workflow_events.hooks import WorkflowEventHook

        trigger = self._trigger(context)
        began_ms = time() * 1000
        options: dict[str, Any] = {"topic": trigger.topic} if trigger.topic else {}
        hook = WorkflowEventHook(trigger.workflow_events_conn_id)
        with hook.get_consumer(
            start_from=trigger.start, consumer_timeout_ms=_END_OF_TOPIC_MS, **options
        ) as consumer:
            for received in consumer.records():
                if (found := trigger.judge(received)) is not None:
                    return PokeReturnValue(True, self._judge(found["event"], failed=found["failed"]))
                if (received.timestamp_ms or 0) > began_ms:  # on a busy topic there is always one more
                    break
        return PokeReturnValue(False)

    def _judge(self, event: dict[str, Any], *, failed: bool) -> dict[str, Any]:
        name = f"{event['event_type']} of {event['workflow_id']}, run {event['workflow_run_id']}"
        if failed:
            error = event.get("payload", {}).get("data", {}).get("error")
            reason = (
                f"{error.get('type')}: {error.get('message')}"
                if isinstance(error, dict)
                else "no reason given"
            )
            raise AirflowFailException(f"{name} (event {event['event_id']}): {reason}")
        self.log.info("%s has come: event %s.", name, event["event_id"])
        return event

    def _trigger(self, context: Context) -> WorkflowEventTrigger:
        # Late, as it loads the triggerer's modules: whoever parses a DAG file needs none.
        from airflow_workflow_events.triggers import WorkflowEventTrigger

        return WorkflowEventTrigger(
            workflow_id=_names(self.workflow_id),
            workflow_run_id=_names(self.workflow_run_id),
            event_type=_names(self.event_type),
            source=_names(self.source),
            environment=_names(self.environment),
            data=self.data or None,
            fail_on=_names(self.fail_on),
            topic=text_or_none(self.topic),
            start_from=self._since(context).isoformat(),
            workflow_events_conn_id=str(self.workflow_events_conn_id),
            once=True,
        )

    def _since(self, context: Context) -> dt.datetime:
        since = self.since
        if isinstance(since, str) and since.strip():
            try:
                since = dt.datetime.fromisoformat(since.strip())
            except ValueError:
                raise ConfigurationError(
                    f"since is {since!r}: use a time in ISO 8601 with a time zone, or a timedelta"
                ) from None
        if isinstance(since, dt.datetime):
            if since.tzinfo is None:
                raise ConfigurationError(f"since is {since.isoformat()}, which has no time zone")
            return since
        started = context["dag_run"].start_date or dt.datetime.now(dt.UTC)
        if isinstance(since, dt.timedelta):
            return started - since
        if since:
            raise ConfigurationError(f"since is {since!r}: use a datetime, its ISO text, or a timedelta")
        return started


def _names(value: Any) -> Names:
    """Return a name or names; a template that was rendered to nothing stands for none given."""
    if value is None or isinstance(value, str):
        return text_or_none(value)
    return [str(one) for one in value] or None
