"""What the example DAGs are expected to put on the topic, and the check of what came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import confluent_kafka

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events import decode

#: DAGs whose tasks wait for what others publish: these run first.
WAITING = ("example_wait_for_three_workflows", "example_wait_for_a_services_event")
#: DAGs that only publish.
PUBLISHING = (
    "example_publish_with_operator",
    "example_publish_with_callbacks",
    "example_notify_of_missed_deadline",
    "example_publish_what_a_function_returns",
    "example_etl_that_fails_and_retries",
)
#: A DAG that starts when one of the others completes, and the DAG whose completion starts it.
STARTED, STARTED_BY = "example_start_when_another_completes", "example_publish_with_callbacks"
#: The workflow of a service that is not Airflow.
SERVICE = "order_import"

#: By workflow: the event type, and the task where the event is a task's.
EXPECTED: dict[str, list[tuple[str, str | None]]] = {
    "example_publish_with_operator": [("orders.loaded", None), ("orders.ready", None)],
    "example_publish_with_callbacks": [
        ("task.started", "refresh"),
        ("task.completed", "refresh"),
        ("workflow.completed", None),
        ("sales.refreshed", None),
    ],
    "example_notify_of_missed_deadline": [("workflow.deadline_missed", None), ("workflow.completed", None)],
    "example_publish_what_a_function_returns": [("region.loaded", None)] * 3,
    "example_etl_that_fails_and_retries": [
        ("task.completed", "extract"),
        ("task.retrying", "transform"),
        ("task.completed", "transform"),
        ("task.failed", "load"),
        ("workflow.failed", None),
    ],
    SERVICE: [("orders.imported", None)],
    "example_wait_for_a_services_event": [("orders.counted", None)],
    "example_wait_for_three_workflows": [("regions.all_completed", None)],
    STARTED: [("report.written", None)],
}

#: Part of the password in the failing task's exception: it must never leave.
CANARY = b"s3cr3t-canary"

Slot = tuple[str, str, str | None]


@dataclass
class Checklist:
    """Ticks off expected events as they arrive.

    Args:
        run_id: the run id of every run that is looked at, or that started one; others are ignored.
    """

    run_id: str
    problems: list[str] = field(default_factory=list)
    arrived: list[WorkflowEvent] = field(default_factory=list)
    _missing: Counter[Slot] = field(default_factory=lambda: Counter(_slots()))
    _ids: set[str] = field(default_factory=set)

    @property
    def expected_count(self) -> int:
        """How many events are expected in all."""
        return sum(1 for _ in _slots())

    @property
    def missing(self) -> list[str]:
        """What has not come yet, a line each."""
        return [
            f"{kind} of {dag_id}{f' (task {task})' if task else ''}{f' x{count}' if count > 1 else ''}"
            for (dag_id, kind, task), count in sorted(self._missing.items(), key=str)
            if count > 0
        ]

    @property
    def complete(self) -> bool:
        """Whether every expected event has come."""
        return not self.missing

    def take(self, message: confluent_kafka.Message) -> WorkflowEvent | None:
        """Check a message; return its event if it belongs to the runs that are looked at."""
        value = message.value() or b""
        if CANARY in value:
            self.problems.append(f"the message at offset {message.offset()} carries a secret")
        try:
            event = decode(value, message.headers())
        except EventDecodeError as error:
            self.problems.append(f"the message at offset {message.offset()} is no event: {error}")
            return None
        if self.run_id not in _runs_of(event):
            return None
        if event.event_id in self._ids:
            return None  # at least once: the same event again is no second event
        self._ids.add(event.event_id)
        self.arrived.append(event)
        if dict(message.headers() or []).get("ce_id") != event.event_id.encode():
            self.problems.append(f"{event.event_type} of {event.workflow_id} has no ce_id header of its own")
        slot = (event.workflow_id, str(event.event_type), task_of(event))
        if self._missing[slot] > 0:
            self._missing[slot] -= 1
        else:
            self.problems.append(f"{event.event_type} of {event.workflow_id} came without being expected")
        return event


def _runs_of(event: WorkflowEvent) -> set[str]:
    """Return the ids of the event's run, and of those that started it, as far as it says."""
    started_by = event.payload.data.get("started_by") or []
    return {event.workflow_run_id, *(one["workflow_run_id"] for one in started_by)}


def task_of(event: WorkflowEvent) -> str | None:
    """Return the task a lifecycle event is about."""
    task = event.payload.data.get("task")
    return task.get("task_id") if isinstance(task, dict) else None


def _slots() -> Iterable[Slot]:
    for dag_id, events in EXPECTED.items():
        for kind, task in events:
            yield dag_id, kind, task
