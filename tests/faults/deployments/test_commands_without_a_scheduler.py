"""The commands that run a DAG by themselves: whatever they leave in the outbox, they say so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.conftest import NoteFault
from tests.faults.deployments.bundles import bundled_deployment, local_bundle
from tests.faults.deployments.production import TOPIC
from tests.faults.deployments.sources import messages_of
from tests.faults.deployments.watched import MARKS

pytestmark = [*MARKS, pytest.mark.timeout(900)]

_DAGS = Path(__file__).parent / "dags"


def test_what_a_command_leaves_during_an_outage_it_names_and_the_next_one_delivers(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, note_fault: NoteFault
) -> None:
    bundles = [local_bundle(_DAGS)]
    with bundled_deployment(tmp_path, packages, postgresql, kafka, bundles) as watched:
        airflow = watched.airflow
        airflow.migrate()
        kafka.kill(1)
        said = airflow.run_as("dags-test-1", "airflow", "dags", "test", "plain")
        assert "3 event(s) wait in the outbox" in said
        kafka.start_broker(1)
        said = airflow.run_as("dags-test-2", "airflow", "dags", "test", "plain")
        assert "wait in the outbox" not in said
        watched.commands += ["dags-test-1", "dags-test-2"]
        found = watched.compare()
        told = messages_of(kafka.bootstrap_servers, TOPIC)
        # A task without a run: Airflow makes a run for it that nobody else sees, and rolls it back.
        airflow.run_as("tasks-test", "airflow", "tasks", "test", "plain", "work")
        after = messages_of(kafka.bootstrap_servers, TOPIC)
    note_fault("airflow dags test, airflow tasks test; no scheduler, Kafka away", 1, remark=found.summary())
    assert found.wrong == [], found.details()
    assert Counter(message["event_type"] for message in told) == {
        "task.started": 2,
        "task.completed": 2,
        "workflow.completed": 2,
    }
    assert [message["event_type"] for message in after[len(told) :]] == []
