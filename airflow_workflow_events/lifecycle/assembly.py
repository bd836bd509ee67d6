"""What goes around the facts of an event: its id, its metadata, no secrets, and a size that fits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from airflow_workflow_events.events.identity import lifecycle_event_id
from airflow_workflow_events.events.model import (
    EventSource,
    EventType,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
)
from airflow_workflow_events.events.sizes import fit
from airflow_workflow_events.lifecycle.failures import with_capped_error
from airflow_workflow_events.lifecycle.reading import RunIdentity, get, now, number_of, text_or_none
from airflow_workflow_events.lifecycle.redaction import without_secrets
from airflow_workflow_events.lifecycle.secret_names import SecretNames, secret_names
from airflow_workflow_events.settings import Settings
from airflow_workflow_events.version import __version__

#: What a lifecycle event's ``payload.data`` consists of; a caller's own data may not use these names.
LIFECYCLE_FIELDS = (
    "state",
    "previous_state",
    "reason",
    "run_type",
    "clear_number",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "partition_key",
    "queued_at",
    "started_at",
    "ended_at",
    "duration_seconds",
    "url",
    "triggered_by",
    "triggering_user_name",
    "task",
    "failed_tasks",
    "error",
    "conf",
)


@dataclass(frozen=True, slots=True)
class Emission:
    """Who emits an event, from where, and what they add to it.

    Attributes:
        context: what Airflow gave.
        settings: the ``[workflow_events]`` options.
        environment: for ``metadata.environment``.
        emitted_by: ``operator``, ``callback``, ``notifier`` or ``listener``.
        data: added to ``payload.data``.
    """

    context: Mapping[str, Any]
    settings: Settings
    environment: str
    emitted_by: str
    data: Mapping[str, Any] | None = None

    def lifecycle(
        self,
        event_type: str,
        identity: RunIdentity,
        facts: Mapping[str, Any],
        happened_at: dt.datetime | None,
        **subject: Any,
    ) -> WorkflowEvent:
        """Return a lifecycle event.

        Args:
            event_type: what happened.
            identity: the run it happened to.
            facts: ``payload.data``; missing fields of :data:`LIFECYCLE_FIELDS` are null.
            happened_at: when. Default: now.
            **subject: what of the run, for the event's id: its task, or a deadline.

        Raises:
            pydantic.ValidationError: the data has a value that JSON cannot carry; the message names its path.
        """
        ordered = {name: facts.get(name) for name in LIFECYCLE_FIELDS}
        event = WorkflowEvent(
            event_id=self._id(event_type, identity, **subject),
            event_type=event_type,
            source=EventSource.AIRFLOW,
            workflow_id=identity.workflow_id,
            workflow_run_id=identity.workflow_run_id,
            timestamp=happened_at or now(),
            payload=WorkflowEventPayload(data={**ordered, **facts, **(self.data or {})}),
            metadata=self._metadata(),
        )
        # Secrets first: shortening could halve one beyond recognition.
        return fit(with_capped_error(without_secrets(event, self._secret_names())))

    def own(self, event_type: str, about: RunIdentity, author: str, data: Any) -> WorkflowEvent:
        """Return an event in a task's own words.

        Args:
            event_type: what happened.
            about: the run it happened to.
            author: tells the task from others that publish the same of the same run.
            data: ``payload.data``; ``None`` for none.

        Raises:
            pydantic.ValidationError: ``data`` has a value that JSON cannot carry; the message names its path.
        """
        event = WorkflowEvent(
            event_id=self._event_id(
                event_type,
                about,
                task_id=author,
                map_index=number_of(get(self.context.get("ti"), "map_index")),
            ),
            event_type=event_type,
            source=EventSource.AIRFLOW,
            workflow_id=about.workflow_id,
            workflow_run_id=about.workflow_run_id,
            timestamp=now(),
            payload=WorkflowEventPayload(data={} if data is None else data),
            metadata=self._metadata(),
        )
        return without_secrets(event, self._secret_names())

    def _secret_names(self) -> SecretNames:
        return secret_names(self.settings.mask_keys, self.settings.unmask_keys)

    def _id(self, event_type: str, identity: RunIdentity, **subject: Any) -> str:
        if identity.clear_number is None and identity.started_at is None:
            # Airflow's minimal context: a repetition of the run could not be told from the run. A consumer
            # that gets one happening twice is better off than one that takes the second for the first.
            return str(uuid4())
        return self._event_id(event_type, identity, **subject)

    def _event_id(self, event_type: str, identity: RunIdentity, **subject: Any) -> str:
        # A scheduler that is killed while it starts a run leaves it queued, and the next start is another.
        # Whoever else reports of the run sees the one start that was committed, but not when it was queued.
        queued_at = identity.queued_at if event_type == EventType.WORKFLOW_STARTED else None
        return lifecycle_event_id(
            event_type=event_type,
            workflow_id=identity.workflow_id,
            workflow_run_id=identity.workflow_run_id,
            source_instance=self.settings.source_instance,
            clear_number=identity.clear_number,
            run_started_at=identity.started_at if queued_at is None else None,
            run_queued_at=queued_at,
            **subject,
        )

    def _metadata(self) -> WorkflowEventMetadata:
        dag, ti = self.context.get("dag"), self.context.get("ti")
        tags = get(dag, "tags")
        run = self.context.get("dag_run")
        return WorkflowEventMetadata(
            environment=self.environment,
            source_instance=self.settings.source_instance,
            tags=sorted(filter(None, map(text_or_none, tags))) or None
            if isinstance(tags, Collection)
            else None,
            owner=text_or_none(get(self.context.get("task"), "owner")) or _owners(get(dag, "owner")),
            team=text_or_none(get(run, "team_name")),
            traceparent=_traceparent(ti) or _traceparent(run),
            emitted_at=now(),
            emitted_by=self.emitted_by,
            producer=f"airflow-workflow-events/{__version__}",
            orchestrator_version=_airflow_version(),
        )


def _traceparent(traced: object) -> str | None:
    carrier = get(traced, "context_carrier")
    return text_or_none(carrier.get("traceparent")) if isinstance(carrier, Mapping) else None


def _owners(owner: object) -> str | None:
    """Return a DAG's owners in a stable order: Airflow joins the owners of its tasks as a set gives them."""
    names = {name.strip() for name in (text_or_none(owner) or "").split(",")}
    return ", ".join(sorted(names - {""})) or None


def _airflow_version() -> str:
    from airflow import __version__ as version

    return str(version)
