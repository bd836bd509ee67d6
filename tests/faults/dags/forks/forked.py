"""Many tasks that publish, each in a process that is forked; and sensors that wait in the triggerer."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_workflow_events.sensors import WorkflowEventSensor

with DAG("forked", schedule=None, max_active_tasks=64):

    @task
    def numbers(**context: Any) -> list[int]:
        return list(range(context["dag_run"].conf["count"]))

    @task.workflow_event(event_type="forked.published")
    def publishes(number: int) -> dict[str, int]:
        return {"number": number}

    publishes.expand(number=numbers())

with DAG("sensing", schedule=None, max_active_tasks=64):
    WorkflowEventSensor.partial(
        task_id="ends", workflow_run_id="{{ run_id }}", deferrable=True, timeout=900
    ).expand(workflow_id=[f"sensed_{number}" for number in range(8)])

with DAG("sensing_in_vain", schedule=None):
    WorkflowEventSensor(task_id="times_out", workflow_id="never", deferrable=True, timeout=10)
