"""Callbacks for DAGs and tasks: ``on_success_callback=publish_on_success``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_workflow_events.events.model import EventType
from airflow_workflow_events.publisher import Publication, copy_of_data

_DEFAULT = Publication(emitted_by="callback")


def publish_on_success(context: Mapping[str, Any]) -> None:
    """Publish ``workflow.completed`` for a DAG run, ``task.completed`` for a task.

    For ``on_success_callback`` of a DAG or a task. Uses the connection of ``[workflow_events]``. Never raises
    and never takes longer than ``callback_timeout_seconds``; failures are logged and counted.

    Args:
        context: what Airflow gives a callback.
    """
    _DEFAULT.publish(context, "success")


def publish_on_failure(context: Mapping[str, Any]) -> None:
    """Publish ``workflow.failed`` for a DAG run, ``task.failed`` or ``task.retrying`` for a task.

    For ``on_failure_callback`` of a DAG or a task, and ``on_retry_callback`` of a task; otherwise as
    :func:`publish_on_success`.

    Args:
        context: what Airflow gives a callback.
    """
    _DEFAULT.publish(context, "failure")


def workflow_event_callback(
    event_type: EventType | str | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    topic: str | None = None,
    environment: str | None = None,
    conn_id: str | None = None,
    timeout_seconds: float | None = None,
) -> WorkflowEventCallback:
    """Return a callback with options, for any ``on_*_callback`` of a DAG or a task.

    Args:
        event_type: what to call it. Default: what happened, by the state of the run or the task.
        data: added to ``payload.data``.
        topic: where to. Default: the connection's topic.
        environment: Default: the connection's, or ``[workflow_events] environment``.
        conn_id: the connection. Default: ``[workflow_events] conn_id``.
        timeout_seconds: the bound on everything. Default: ``[workflow_events] callback_timeout_seconds``.

    Raises:
        ConfigurationError: ``data`` is no mapping or uses a name of the lifecycle's own, the event type or
            the topic is illegal, or the timeout is not above 0. Raised where the DAG is parsed, so the
            mistake shows as an import error.
    """
    return WorkflowEventCallback(
        Publication(
            emitted_by="callback",
            event_type=None if event_type is None else str(event_type),
            data=copy_of_data(data),
            topic=topic,
            environment=environment,
            conn_id=conn_id,
            timeout_seconds=timeout_seconds,
        )
    )


@dataclass(frozen=True, slots=True)
class WorkflowEventCallback:
    """A callback with options; made by :func:`workflow_event_callback`."""

    publication: Publication

    def __call__(self, context: Mapping[str, Any]) -> None:
        """Publish the event of a context. Never raises."""
        self.publication.publish(context)
