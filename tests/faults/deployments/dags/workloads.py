"""Runs of every kind that Airflow has: each ends by itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, Asset, TaskGroup, setup, task, teardown

_SOON = timedelta(seconds=1)
_ASSET = Asset("seen://produced")


@task
def work(seconds: float = 0.0) -> None:
    """Take a while."""
    time.sleep(seconds)


with DAG("plain", schedule=None, max_active_runs=16):
    work()

with DAG("retrying", schedule=None):

    @task(retries=1, retry_delay=_SOON)
    def fail_once(ti: Any = None) -> None:
        if ti.try_number == 1:
            raise ValueError("the first try fails")

    fail_once() >> work()

with DAG("skipping", schedule=None):

    @task.branch
    def choose() -> str:
        return "chosen"

    @task.short_circuit
    def stop_here() -> bool:
        return False

    @task
    def skip_itself() -> None:
        raise AirflowSkipException("as asked")

    choose() >> [work.override(task_id="chosen")(), work.override(task_id="not_chosen")()]
    stop_here() >> work.override(task_id="cut_off")()
    skip_itself() >> work.override(task_id="after_skip")()

with DAG("mapped", schedule=None):

    @task
    def numbers() -> list[int]:
        return [0, 1, 2]

    @task
    def take(number: int) -> None:
        if number == 1:
            raise AirflowSkipException("one of three")

    take.expand(number=numbers())

with DAG("grouped", schedule=None):

    @setup
    def open_it() -> None: ...

    @teardown
    def close_it() -> None: ...

    with TaskGroup("outer"), TaskGroup("inner"):
        inside = work()
    opened, closed = open_it(), close_it()
    opened >> inside >> closed
    opened >> closed

with DAG("empty", schedule=None):
    EmptyOperator(task_id="nothing")

with DAG("deferring", schedule=None):
    TimeDeltaSensor(task_id="wait", delta=_SOON, deferrable=True) >> work()

with DAG("rescheduling", schedule=None):

    @task.sensor(poke_interval=1, mode="reschedule")
    def poke(ti: Any = None) -> bool:
        return bool(datetime.now(UTC) > ti.start_date + _SOON)

    poke()

with DAG("failing", schedule=None):

    @task
    def fail() -> None:
        raise AirflowFailException("always")

    fail() >> work.override(task_id="upstream_failed")()

with DAG("failing_fast", schedule=None, fail_fast=True):

    @task
    def fail_first() -> None:
        raise AirflowFailException("always")

    fail_first()
    work.override(task_id="waits")(seconds=3) >> work.override(task_id="later")()

with DAG("task_timing_out", schedule=None):
    work.override(execution_timeout=timedelta(seconds=1))(seconds=60)

with DAG("run_timing_out", schedule=None, dagrun_timeout=timedelta(seconds=6)):

    @task.sensor(poke_interval=1, timeout=300, mode="reschedule")
    def wait_in_vain() -> bool:
        return False

    wait_in_vain()

with DAG("producing", schedule=None):

    @task(outlets=[_ASSET])
    def produce() -> None: ...

    produce()

with DAG("consuming", schedule=[_ASSET]):
    work()

with DAG("backfilled", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    work()

with DAG("long", schedule=None, max_active_runs=16):
    work(seconds=8) >> work.override(task_id="after")()
