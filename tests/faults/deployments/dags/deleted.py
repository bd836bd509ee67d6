"""A DAG that is deleted, with its file, after it ran."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("deleted", schedule=None):

    @task
    def work() -> None: ...

    work()
