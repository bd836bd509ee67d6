"""Events of tasks on Celery workers, each of which has an outbox of its own, reach the topic all the same."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.conftest import NoteFault
from tests.faults.deployments.celery_workers import celery_workers
from tests.faults.deployments.production import trigger_all
from tests.faults.deployments.watched import MARKS

pytestmark = [*MARKS, pytest.mark.timeout(1200)]


def test_events_on_the_hosts_of_celery_workers_outlast_an_outage_and_a_warm_shutdown(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, note_fault: NoteFault
) -> None:
    with celery_workers(tmp_path, packages, postgresql, kafka, None) as watched:
        airflow = watched.airflow
        trigger_all(airflow, ["plain", "skipping"])
        watched.await_quiet()
        kafka.kill(1)
        trigger_all(airflow, ["plain", "retrying"])
        watched.await_quiet()
        # A warm shutdown, while this host's events wait for Kafka.
        airflow.signal_part("worker-1", signal.SIGTERM)
        assert airflow.await_end("worker-1") == 0
        kafka.start_broker(1)
        airflow.start_worker("worker-1", host="worker-1")
        found = watched.compare()
    note_fault("Celery, an outbox a worker; Kafka away, a warm shutdown", 1, remark=found.summary())
    assert found.wrong == [], found.details()
