"""Sensors, few and many, and a DAG without tasks that starts for each event of a watcher."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_workflow_events.sensors import WorkflowEventSensor
from airflow_workflow_events.triggers import WorkflowEventTrigger

_SENSED: dict[str, Any] = {"workflow_run_id": "{{ run_id }}", "timeout": 3_600}

with DAG("sensors", schedule=None):
    WorkflowEventSensor.partial(task_id="goes_on", **_SENSED).expand(workflow_id=["sensed_0", "sensed_1"])
    WorkflowEventSensor.partial(task_id="ends", end_from_trigger=True, **_SENSED).expand(
        workflow_id=["sensed_2", "sensed_3"]
    )

with DAG("many_sensors", schedule=None, max_active_tasks=1_024):

    @task
    def names(**context: Any) -> list[str]:
        return [f"many_{number}" for number in range(context["dag_run"].conf["count"])]

    WorkflowEventSensor.partial(task_id="ends", end_from_trigger=True, **_SENSED).expand(workflow_id=names())

watched = Asset(
    "watched",
    watchers=[AssetWatcher(name="watcher", trigger=WorkflowEventTrigger(workflow_id="watched_*"))],
)

with DAG("starts_for_each", schedule=[watched], max_active_runs=64):
    pass
