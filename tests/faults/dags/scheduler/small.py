"""Runs that start and end in the scheduler itself: an empty task needs no process."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

for dag_id in ("small", "second"):
    with DAG(dag_id, schedule=None, max_active_runs=64):
        EmptyOperator(task_id="nothing")
