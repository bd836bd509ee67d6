"""Two DAGs in one file, whose callbacks one process of the DAG processor serves."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

from airflow_workflow_events.callbacks import publish_on_failure, publish_on_success

with DAG(
    "called_back",
    schedule=None,
    max_active_runs=64,
    on_success_callback=publish_on_success,
    on_failure_callback=publish_on_failure,
):
    EmptyOperator(task_id="nothing")

with DAG(
    "called_back_failing",
    schedule=None,
    max_active_runs=64,
    on_success_callback=publish_on_success,
    on_failure_callback=publish_on_failure,
):

    @task
    def fail() -> None:
        raise ValueError("the source is away")

    fail()
