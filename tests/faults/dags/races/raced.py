"""Runs that several processes have a say in."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG("instant", schedule=None, max_active_runs=64):
    EmptyOperator(task_id="nothing")

with DAG("short", schedule=None):

    @task
    def work() -> None: ...

    work()


def waiting() -> None:
    """Add a task that waits for longer than any test."""

    @task.sensor(poke_interval=1, timeout=300, mode="poke")
    def wait() -> bool:
        return False

    wait()


with DAG("waiting", schedule=None):
    waiting()

with DAG("timing_out", schedule=None, dagrun_timeout=timedelta(seconds=5)):
    waiting()
