"""The sensors that are compared, as one would write them: each waits for an event of its own.

The official sensors need a connection each, with a consumer group of its own: two of one group would take
each other's messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseSensorOperator

TASK_ID = "waits"
TIMEOUT_SECONDS = 3_600
#: How many sensors each contender's DAGs have.
COUNTS = {
    "ours": (1, 20),
    "ours_in_triggerer": (1, 20, 100, 1_000),
    "ours_poking": (8,),
    "official": (1, 20, 100),
}

_CONNECTIONS = max(COUNTS["official"])


@dataclass(frozen=True)
class Contender:
    """One way to wait: the sensor, what all of a DAG's sensors have, and what each has of its own."""

    sensor: type[BaseSensorOperator]
    common: dict[str, Any]
    own: Callable[[int], dict[str, Any]]


def contender(name: str, topic: str, run_id: str) -> Contender:
    """Return the contender of that name, to wait for events of a run on a topic."""
    if name == "official":
        from airflow.providers.apache.kafka.sensors.kafka import AwaitMessageSensor

        return Contender(
            AwaitMessageSensor,
            {"topics": [topic], "apply_function": "benchmarks.matching.match"},
            lambda number: {
                "kafka_config_id": f"kafka_{number}",
                "apply_function_kwargs": {"workflow_id": workflow_id(number), "workflow_run_id": run_id},
            },
        )
    from airflow_workflow_events.sensors import WorkflowEventSensor

    how: dict[str, dict[str, Any]] = {
        "ours": {},
        "ours_in_triggerer": {"end_from_trigger": True},
        "ours_poking": {"deferrable": False, "mode": "poke"},
    }
    return Contender(
        WorkflowEventSensor,
        {"topic": topic, "workflow_run_id": run_id, **how[name]},
        lambda number: {"workflow_id": workflow_id(number)},
    )


def dag_id(name: str, count: int) -> str:
    """Return the DAG in which so many sensors of a contender wait."""
    return f"{name}_{count}"


def topic_of(dag: str) -> str:
    """Return the topic on which a DAG's sensors wait: none has to skip another DAG's events."""
    return f"benchmark-{dag}"


def topics() -> list[str]:
    """Return the topics of all DAGs."""
    return [topic_of(dag_id(name, count)) for name, counts in COUNTS.items() for count in counts]


def workflow_id(number: int) -> str:
    """Return the workflow that a DAG's sensor of this number waits for."""
    return f"awaited_{number}"


def group_id(number: int) -> str:
    """Return the consumer group of the official sensor of this number."""
    return f"benchmark-{number}"


def connections(servers: str) -> dict[str, dict[str, Any]]:
    """Return the Airflow connections that the sensors need."""
    made: dict[str, dict[str, Any]] = {
        "workflow_events_default": {"conn_type": "workflow_events", "extra": {"bootstrap.servers": servers}}
    }
    for number in range(_CONNECTIONS):
        # From the earliest, so that what comes before the group has its partitions is not missed.
        extra = {
            "bootstrap.servers": servers,
            "group.id": group_id(number),
            "auto.offset.reset": "earliest",
        }
        made[f"kafka_{number}"] = {"conn_type": "kafka", "extra": extra}
    return made
