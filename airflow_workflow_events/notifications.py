"""The notifier: the same events for ``on_*_callback`` and, asynchronously, for deadline alerts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_workflow_events.compat import BaseNotifier

from airflow_workflow_events import metrics as names
from airflow_workflow_events.events.model import EventType
from airflow_workflow_events.lifecycle.reading import text_or_none
from airflow_workflow_events.publisher import Publication, copy_of_data
from airflow_workflow_events.relaying import METRICS

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

log: logging.Logger = logging.getLogger(__name__)


class WorkflowEventNotifier(BaseNotifier):
    """Publishes a workflow event. For callbacks of DAGs and tasks, and for deadline alerts::

        on_failure_callback=WorkflowEventNotifier()
        DeadlineAlert(..., callback=AsyncCallback(WorkflowEventNotifier))

    Like the callbacks it never raises and never outlasts its bound. ``event_type``, ``data``, ``topic`` and
    ``environment`` may contain templates. Where the context lacks what a template names, as Airflow's minimal
    context of a run without tasks does, that field is left out and logged, and the event is still published.
    A template rendered to nothing stands for the default.

    Args:
        event_type: what to call it. Default: what happened, by the state of the run or the task;
            ``workflow.deadline_missed`` in a deadline alert.
        data: added to ``payload.data``.
        topic: where to. Default: the connection's topic.
        environment: Default: the connection's, or ``[workflow_events] environment``.
        conn_id: the connection. Default: ``[workflow_events] conn_id``.
        timeout_seconds: the bound on everything. Default: ``[workflow_events] callback_timeout_seconds``.
        context: given by Airflow in deadline alerts.

    Raises:
        ConfigurationError: ``data`` is no mapping or uses a name of the lifecycle's own, or the timeout
            is not above 0.
    """

    template_fields: Sequence[str] = ("event_type", "data", "topic", "environment")

    def __init__(
        self,
        *,
        event_type: EventType | str | None = None,
        data: Mapping[str, Any] | None = None,
        topic: str | None = None,
        environment: str | None = None,
        conn_id: str | None = None,
        timeout_seconds: float | None = None,
        context: Context | None = None,
    ) -> None:
        self.event_type: str | None = None if event_type is None else str(event_type)
        self.data: dict[str, Any] = copy_of_data(data)
        self.topic = topic
        self.environment = environment
        self.conn_id = conn_id
        self.timeout_seconds = timeout_seconds
        # A mistake shows where the DAG is parsed; the topic may still be a template there.
        Publication(emitted_by="notifier", data=self.data, timeout_seconds=timeout_seconds)
        super().__init__(context=context)

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Leave the templates as they are: :meth:`notify` renders them for the context it gets.

        Airflow's own version replaces the attributes, and one notifier serves every run whose callbacks the
        DAG processor handles in one process: the second run would get the values of the first.
        """

    def notify(self, context: Context) -> None:
        """Publish the event of a callback's context. Never raises."""
        self._publish(context)

    async def async_notify(self, context: Context) -> None:
        """Publish the event of a deadline alert without blocking the triggerer's loop. Never raises."""
        import asyncio

        from airflow_workflow_events.supervisor_channel import share_supervisor_channel

        share_supervisor_channel()
        await asyncio.to_thread(self._publish, context)

    def _update_context(self, context: Context) -> Context:
        """Leave the context alone: Airflow would put ``data`` and ``topic`` into what other callbacks see."""
        return context

    def _publish(self, context: Context) -> None:
        try:
            values = self._rendered(context)
            publication = Publication(
                emitted_by="notifier",
                event_type=text_or_none(values["event_type"]),
                data=values["data"] or {},
                topic=text_or_none(values["topic"]),
                environment=text_or_none(values["environment"]),
                conn_id=self.conn_id,
                timeout_seconds=self.timeout_seconds,
            )
        except Exception as error:  # noqa: BLE001 - a topic rendered to something illegal, for one
            subject = Publication(emitted_by="notifier").subject(context)
            log.error("%s was not published by the notifier: %s: %s", subject, type(error).__name__, error)
            METRICS.incr(names.FAILED, tags={"emitted_by": "notifier"})
            return
        publication.publish(context)

    def _rendered(self, context: Context) -> dict[str, Any]:
        """Return the templated fields as this context renders them; ``None`` for one that it cannot."""
        environment = self._template_environment(context)
        values: dict[str, Any] = {}
        for name in self.template_fields:
            try:
                values[name] = self.render_template(getattr(self, name), context, environment)
            except Exception as error:  # noqa: BLE001 - templates raise anything; the event matters more
                values[name] = None
                log.warning("%s is left out of the event, its template failed: %s", name, error)
        return values

    def _template_environment(self, context: Context) -> jinja2.Environment:
        from jinja2 import StrictUndefined

        try:
            dag = context.get("dag")
            if hasattr(dag, "get_template_env"):
                return self.get_template_env(dag=dag)
        except Exception as error:  # noqa: BLE001 - jinja imports extensions; what needs none still renders
            log.warning("templates do without the DAG's jinja environment, which failed: %s", error)
        # Under dag.test() the DAG is a serialised one, which has no template environment, and a deadline
        # alert has no DAG. Airflow's bare environment would render what is missing as nothing.
        environment = self.get_template_env()
        environment.undefined = StrictUndefined
        return environment
