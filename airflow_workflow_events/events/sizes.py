"""Fitting a lifecycle event under the soft cap by shortening what is longest and least needed.

A lifecycle event is written for its state change; a stack trace of a megabyte must not keep that from
arriving. What a user publishes is never shortened: it is refused when it is too large.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json as value_to_json

from airflow_workflow_events.events.codec import to_json
from airflow_workflow_events.events.model import WorkflowEvent, WorkflowEventMetadata

#: Keeps a topic of lifecycle events cheap to read and far below every broker's limit.
SOFT_CAP_BYTES = 65_536

_MARK = " ...[shortened]... "

# In the order in which they are given up: bulk first, what tells the story last.
_STEPS: tuple[tuple[str, int], ...] = (
    ("error.stack_trace", 8_000),
    ("conf", 0),
    ("error.stack_trace", 1_000),
    ("error.message", 2_000),
    ("failed_tasks", 0),
    ("error.stack_trace", 0),
    ("reason", 1_000),
    ("note", 500),
    ("url", 0),
    ("error.message", 300),
)


def fit(event: WorkflowEvent, cap_bytes: int = SOFT_CAP_BYTES) -> WorkflowEvent:
    """Return the event, shortened field by field until its JSON fits, and marked in ``metadata.truncated``.

    Args:
        event: a lifecycle event.
        cap_bytes: the most its JSON may take. Default 65,536.

    Returns:
        The same object where it fits already. Where even the last step leaves it too large, because of fields
        a caller added, the largest of these are given up, then all of ``payload.data``, and at last all but
        what identifies the event.
    """
    if len(to_json(event)) <= cap_bytes:
        return event
    data = _copy(event.payload.data)
    truncated = list(event.metadata.truncated or [])
    for path, keep_characters in _STEPS:
        if _shorten(data, path, keep_characters):
            truncated.append(f"payload.data.{path}")
            if len(to_json(smaller := _with(event, data, truncated))) <= cap_bytes:
                return smaller
    excess = len(to_json(_with(event, data, truncated))) - cap_bytes
    # Serialising after each field would take minutes for a payload of many, so what each saves is estimated.
    for saving, name in sorted(((_saving(name, data[name]), name) for name in data), reverse=True):
        if excess <= 0 or saving <= 0:
            break
        data[name] = None
        truncated.append(f"payload.data.{name}")
        excess -= saving
    if len(to_json(smaller := _with(event, data, truncated))) <= cap_bytes:
        return smaller
    if len(to_json(smaller := _with(event, {}, ["payload.data"]))) <= cap_bytes:
        return smaller
    return _bare(event)


def _with(event: WorkflowEvent, data: dict[str, Any], truncated: list[str]) -> WorkflowEvent:
    return event.model_copy(
        update={
            "payload": event.payload.model_copy(update={"data": data}),
            "metadata": event.metadata.model_copy(update={"truncated": sorted(set(truncated))}),
        }
    )


def _bare(event: WorkflowEvent) -> WorkflowEvent:
    return WorkflowEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        source=event.source,
        workflow_id=event.workflow_id,
        workflow_run_id=event.workflow_run_id,
        timestamp=event.timestamp,
        metadata=WorkflowEventMetadata(
            environment=event.metadata.environment,
            version=event.metadata.version,
            source_instance=event.metadata.source_instance,
            truncated=["metadata", "payload"],
        ),
    )


def _copy(data: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in data.items()}


def _saving(name: str, value: Any) -> int:
    """Bytes that giving up a field takes off the JSON: its value, less a null and its mark."""
    return len(value_to_json(value)) - len(b"null") - len(value_to_json(f"payload.data.{name}")) - len(b",")


def _shorten(data: dict[str, Any], path: str, keep_characters: int) -> bool:
    parent: Any = data
    *parents, name = path.split(".")
    for part in parents:
        parent = parent.get(part)
        if not isinstance(parent, dict):
            return False
    value = parent.get(name)
    if value is None:
        return False
    if keep_characters == 0 or not isinstance(value, str):
        parent[name] = None
        return True
    if len(value) <= keep_characters:
        return False
    # The end of a stack trace says what was raised, the beginning where it came from.
    head = keep_characters // 3
    parent[name] = f"{value[:head]}{_MARK}{value[head - keep_characters :]}"
    return True
