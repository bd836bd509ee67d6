"""One Airflow for all tests of a session that need one."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.events import DEFAULT_TOPIC
from demo.deployment import AirflowDeployment
from tests.broker import Broker, event_of
from tests.waiting import await_condition

_EVENT_SECONDS = 60
_STATE_SECONDS = 120


@dataclass(frozen=True)
class Airflow:
    """A running Airflow and the broker its events go to."""

    deployment: AirflowDeployment
    broker: Broker

    def run(self, dag_id: str) -> tuple[str, str]:
        """Run a DAG to its end; return the run's id and state."""
        run_id = f"test__{uuid.uuid4()}"
        self.deployment.trigger(dag_id, run_id)
        return run_id, self.deployment.await_run(dag_id, run_id)

    def publish(self, *events: WorkflowEvent, topic: str = DEFAULT_TOPIC) -> None:
        """Publish events of somebody else's; returns once the brokers have them."""
        with WorkflowEventProducer(self.broker.bootstrap_servers, topic=topic) as producer:
            assert all(report.delivered for report in producer.publish_events(events, timeout=60))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """What Airflow says of a run's task instances; none while it does not know the run."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100"
        found: list[dict[str, Any]] = self.deployment.get(path)["task_instances"]
        return found

    def await_states(self, dag_id: str, run_id: str, states: Mapping[str, str]) -> None:
        """Wait until tasks of a run, all instances of each that is mapped, are in these states."""

        def reached() -> bool:
            found = [(one["task_id"], one["state"]) for one in self.tasks(dag_id, run_id)]
            return {task_id for task_id, _ in found} >= states.keys() and all(
                state == states[task_id] for task_id, state in found if task_id in states
            )

        self.deployment.await_condition(reached, _STATE_SECONDS, f"tasks of {run_id} to be {states}")

    def result(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """What a task has returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.deployment.get(f"{path}?map_index={map_index}&stringify=false")["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The log of a task's first try."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1"
        return self.deployment.request("GET", path).text

    def events(self, run_id: str, count: int) -> list[WorkflowEvent]:
        """Return a run's events in the order of the topic, once there are ``count`` of them."""

        def found() -> list[WorkflowEvent]:
            messages = self.broker.messages(DEFAULT_TOPIC, 0)
            events = [event_of(message) for message in messages]
            of_run = [event for event in events if event.workflow_run_id == run_id]
            return of_run if len(of_run) >= count else []

        return await_condition(
            found, timeout_seconds=_EVENT_SECONDS, what=f"{count} events of run {run_id} on {DEFAULT_TOPIC}"
        )


@pytest.fixture(scope="session")
def airflow(best_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Scheduler, DAG processor, triggerer and API server with the example DAGs and those of the tests."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    root = Path(__file__).parent.parent.parent
    shutil.copytree(root / "dags_example", dags, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "tests" / "airflow_e2e" / "dags", dags, dirs_exist_ok=True)
    if not _has_topic(best_broker, DEFAULT_TOPIC):
        best_broker.create_topic(DEFAULT_TOPIC)
    connections: dict[str, dict[str, object]] = {
        "workflow_events_default": {
            "conn_type": "workflow_events",
            "extra": {"bootstrap.servers": best_broker.bootstrap_servers, "environment": "test"},
        },
        "dead_broker": {
            "conn_type": "workflow_events",
            "host": "127.0.0.1",
            "port": 1,
            "extra": {"connect.timeout.ms": 1000},
        },
    }
    config = {
        "core.test_connection": "Enabled",
        "scheduler.trigger_timeout_check_interval": "2",
        "workflow_events.source_instance": "test-airflow",
        # A DAG processor on a machine that runs other tests beside it may take seconds to answer a callback.
        "workflow_events.callback_timeout_seconds": "40",
    }
    with AirflowDeployment(home, dags, connections=connections, config=config) as deployment:
        deployment.start()
        deployment.await_dags({"edge_without_tasks", "example_publish_with_operator", "waiting_of_all_kinds"})
        yield Airflow(deployment, best_broker)


def _has_topic(broker: Broker, topic: str) -> bool:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "tests", "log_level": 0})
    try:
        return topic in consumer.list_topics(timeout=20).topics
    finally:
        consumer.close()
