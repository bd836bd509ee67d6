"""A DAG whose file is changed while it runs."""

from __future__ import annotations

import time

from airflow.sdk import DAG, task

with DAG("changing", schedule=None):

    @task
    def first() -> None:
        time.sleep(8)

    @task
    def second() -> None: ...

    first() >> second()
