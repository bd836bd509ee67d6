"""An Airflow to measure in: its processes, the contenders' DAGs and connections, and a topic for each DAG."""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from airflow_workflow_events import WorkflowEvent
from benchmarks import broker, events, sensors
from benchmarks.broker import ROOT
from tests.faults.processes.airflow_parts import AirflowParts

_DAGS = ROOT / "benchmarks" / "dags"
_PARTITIONS = 3
_START_SECONDS = 180
_CONFIG = {
    "core.parallelism": "32",
    "triggerer.capacity": "2000",
    # Parsing would take turns with what is measured: once is enough.
    "dag_processor.min_file_process_interval": "86400",
    "dag_processor.refresh_interval": "86400",
}


class Deployed(AirflowParts):
    """An Airflow with runs of sensors, of which more is known than its REST API says."""

    def begin(self, dag_id: str) -> str:
        """Make a run of a DAG and return its id."""
        return self.trigger(dag_id, f"run-{uuid.uuid4()}")

    def await_states(
        self, dag_id: str, run_id: str, states: dict[str, int], seconds: float = _START_SECONDS
    ) -> None:
        """Wait until so many of a run's sensors are in these states."""
        query = "SELECT state FROM task_instance WHERE dag_id = ? AND run_id = ?"

        def found() -> bool:
            return Counter(state for (state,) in self.select(query, dag_id, run_id)) == states

        self.await_condition(found, seconds, f"the sensors of {dag_id} to be {states}")

    def await_triggers(self, dag_id: str, run_id: str, count: int, seconds: float = _START_SECONDS) -> None:
        """Wait until a triggerer has begun to run so many triggers of a run: each has a log then."""
        folder = self.logs / "airflow" / f"dag_id={dag_id}" / f"run_id={run_id}"
        self.await_condition(
            lambda: len(list(folder.rglob("*.trigger.*.log"))) >= count,
            seconds,
            f"{count} triggers of {dag_id} to run",
        )

    def select(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask Airflow's database."""
        with closing(sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True)) as connection:
            return connection.execute(query, parameters).fetchall()


@contextmanager
def deployed(servers: str) -> Iterator[Deployed]:
    """Run an Airflow whose sensors wait on topics of these brokers."""
    for topic in sensors.topics():
        broker.create_topic(servers, topic, _PARTITIONS)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-airflow-") as home,
        Deployed(Path(home), _DAGS, connections=sensors.connections(servers), config=_CONFIG) as airflow,
    ):
        airflow.start()
        airflow.await_dags({sensors.dag_id(*one) for one in _dags()})
        yield airflow


def awaited(number: int, run_id: str) -> WorkflowEvent:
    """Return the event that the sensor of this number waits for."""
    values = {**events.arguments(number), "event_id": str(uuid.uuid4())}
    return WorkflowEvent.model_validate(
        {**values, "workflow_id": sensors.workflow_id(number), "workflow_run_id": run_id}
    )


def _dags() -> Iterator[tuple[str, int]]:
    return ((name, count) for name, counts in sensors.COUNTS.items() for count in counts)
