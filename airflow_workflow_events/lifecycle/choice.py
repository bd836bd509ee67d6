"""What a DAG says about its own events, by a tag or a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from airflow_workflow_events.lifecycle.reading import get, text_or_none

#: A tag that keeps a DAG's events at home.
OFF_TAG = "workflow-events:off"
#: A tag that names the topic of a DAG's events, behind this.
TOPIC_TAG = "workflow-events:topic="
#: A parameter that says the same: ``{"enabled": False}`` or ``{"topic": "orders"}``.
PARAMETER = "workflow_events"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a DAG chose.

    Attributes:
        is_off: whether it keeps its events at home.
        topic: the topic of its events; ``None`` where it chose none.
    """

    is_off: bool
    topic: str | None

    @classmethod
    def of(cls, dag: object) -> Self:
        """Read it from a DAG, serialised or not; what cannot be read was not chosen."""
        parameter = _parameter(dag)
        tags = [text for tag in get(dag, "tags") or () if (text := text_or_none(tag))]
        by_tag = next((tag.removeprefix(TOPIC_TAG) for tag in tags if tag.startswith(TOPIC_TAG)), None)
        return cls(
            is_off=OFF_TAG in tags or parameter.get("enabled") is False,
            topic=text_or_none(parameter.get("topic")) or by_tag or None,
        )


def _parameter(dag: object) -> Mapping[str, Any]:
    params: Any = get(dag, "params")
    try:
        found = params[PARAMETER] if params is not None and PARAMETER in params else None
    except Exception:  # noqa: BLE001 - a parameter whose default breaks its own schema raises
        return {}
    return found if isinstance(found, Mapping) else {}
