"""Celery workers that are replaced, shut down and killed while tasks run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.conftest import NoteFault
from tests.faults.deployments import operations
from tests.faults.deployments.celery_workers import WORKERS, celery_workers
from tests.faults.deployments.production import trigger_all
from tests.faults.deployments.watched import MARKS

pytestmark = [*MARKS, pytest.mark.timeout(2400)]

_ALL = ["plain", "retrying", "skipping", "mapped", "grouped", "deferring", "failing", "task_timing_out"]
_ROUNDS = 2


@pytest.mark.parametrize("outbox", ["file", "postgresql"])
def test_events_outlast_workers_that_are_killed_in_mid_task_and_children_that_are_replaced(
    outbox: str,
    tmp_path: Path,
    packages: Path,
    postgresql: PostgreSQL,
    kafka: KafkaCluster,
    note_fault: NoteFault,
) -> None:
    url = None if outbox == "file" else postgresql.new_database()
    options = {"extra_celery_config": json.dumps({"worker_max_tasks_per_child": 3})}
    with celery_workers(tmp_path, packages, postgresql, kafka, url, **options) as watched:
        airflow = watched.airflow
        for number in range(_ROUNDS):
            trigger_all(airflow, _ALL)
            runs = [airflow.trigger("long", f"killed_{number}_{one}") for one in range(4)]
            operations.await_task(watched, "long", runs[-1], "work", "running")
            airflow.kill_part(WORKERS[0])
            airflow.start_worker(WORKERS[0], host=WORKERS[0], **options)
            airflow.signal_part(WORKERS[1], signal.SIGTERM)
            assert airflow.await_end(WORKERS[1]) == 0
            airflow.start_worker(WORKERS[1], host=WORKERS[1], **options)
            watched.await_quiet()
        found = watched.compare()
    note_fault(
        f"Celery, outbox: {outbox}; max_tasks_per_child, SIGTERM, kill -9 of workers",
        2 * _ROUNDS,
        remark=found.summary(),
    )
    assert found.wrong == [], found.details()
