"""No task, sensor or scheduler hangs with the listener on, though connections take long to look up."""

from __future__ import annotations

import signal
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.events import DEFAULT_TOPIC
from tests.airflow_versions import NO_ASYNC_DATABASE
from tests.broker import Broker
from tests.databases import PostgreSQL
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.processes.airflow_parts import DAGS, AirflowParts, await_deliveries

pytestmark = [
    pytest.mark.airflow_e2e,
    pytest.mark.real_kafka,
    pytest.mark.xdist_group("airflow"),
    pytest.mark.timeout(3_600),
]

_CONN_ID = "workflow_events_default"
# 60 tasks on a busy machine of two cores; one that hangs does so for as long as it is let.
_RUN_SECONDS = 600
_SENSORS = 8


@dataclass(frozen=True)
class Forked:
    """An Airflow whose secrets backend takes 0.3 s, so that forks cut through look-ups."""

    airflow: AirflowParts
    broker: Broker

    def start_scheduler(self) -> None:
        self.airflow.start_part("scheduler", "airflow", "scheduler")

    def end_scheduler(self) -> float:
        """Ask the scheduler to end; return how many seconds that took. One that does not soon is an error."""
        began = monotonic()
        self.airflow.signal_part("scheduler", signal.SIGTERM)
        assert self.airflow.await_end("scheduler") == 0
        return monotonic() - began

    def run_many(self, count: int) -> dict[str, WorkflowEvent]:
        """Run that many mapped tasks in a scheduler that starts with them; return the run's events by id."""
        run_id = self.airflow.trigger("forked", f"forked__{uuid.uuid4()}", conf={"count": count})
        self.start_scheduler()
        assert self.airflow.await_run("forked", run_id, _RUN_SECONDS) == "success"
        found = await_deliveries(self.broker, [run_id], sum(_expected(count).values()))
        return {event.event_id: event for event in found[run_id]}


@pytest.fixture(scope="module")
def forked(
    real_broker: Broker, postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Forked]:
    home: Path = tmp_path_factory.mktemp("forked")
    config = {
        "database.sql_alchemy_conn": postgresql.new_database().replace("postgresql:", "postgresql+psycopg2:"),
        "database.sql_alchemy_conn_async": NO_ASYNC_DATABASE,
        "core.parallelism": "8",
        "secrets.backend": "tests.faults.processes.slow_backend.SlowBackend",
        "workflow_events.listener": "True",
    }
    with AirflowParts(home, DAGS / "forks", config=config) as airflow:
        airflow.start()
        airflow.connect_to(_CONN_ID, real_broker.bootstrap_servers)
        airflow.await_dags({"forked", "sensing", "sensing_in_vain"})
        airflow.end_part("scheduler")
        yield Forked(airflow, real_broker)


def test_no_mapped_task_hangs_that_the_scheduler_forks_while_its_relay_looks_a_connection_up(
    forked: Forked, scale: Scale, note_fault: NoteFault
) -> None:
    runs, count = scale.of(20, 1), scale.of(60, 8)
    end_seconds: list[float] = []
    began = monotonic()
    for number in range(1, runs + 1):
        events = forked.run_many(count)
        end_seconds.append(forked.end_scheduler())
        assert Counter(str(event.event_type) for event in events.values()) == _expected(count)
        assert _numbers(events.values()) == set(range(count))
        print(f"{number} of {runs} runs in {monotonic() - began:.0f} s")
    note_fault(
        f"a run of {count} mapped tasks, in a scheduler that starts with it",
        runs,
        remark=f"all ended, no event missing; the scheduler ends within {max(end_seconds):.1f} s",
    )


def test_sensors_end_in_a_triggerer_whose_secrets_backend_is_slow(
    forked: Forked, note_fault: NoteFault
) -> None:
    run_id = forked.airflow.trigger("sensing", f"sensing__{uuid.uuid4()}")
    in_vain = forked.airflow.trigger("sensing_in_vain", f"in_vain__{uuid.uuid4()}")
    forked.start_scheduler()
    assert forked.airflow.await_run("sensing_in_vain", in_vain, _RUN_SECONDS) == "failed"
    forked.airflow.await_condition(
        lambda: _states(forked.airflow, "sensing", run_id) == {"deferred": _SENSORS},
        _RUN_SECONDS,
        "the sensors to wait",
    )
    with WorkflowEventProducer(forked.broker.bootstrap_servers, topic=DEFAULT_TOPIC) as producer:
        for number in range(_SENSORS):
            event = make_event(workflow_id=f"sensed_{number}", workflow_run_id=run_id)
            assert producer.publish_event(event, timeout=60)
    assert forked.airflow.await_run("sensing", run_id, _RUN_SECONDS) == "success"
    seconds = forked.end_scheduler()
    note_fault(
        "sensors, and a secrets backend that takes 0.3 s",
        _SENSORS + 1,
        remark=f"each had its event, or its timeout; the scheduler ends within {seconds:.1f} s",
    )


def _expected(count: int) -> Counter[str]:
    return Counter(
        {
            "workflow.started": 1,
            "workflow.completed": 1,
            "task.started": count + 1,
            "task.completed": count + 1,
            "forked.published": count,
        }
    )


def _numbers(events: Iterable[WorkflowEvent]) -> set[int]:
    return {event.payload.data["number"] for event in events if str(event.event_type) == "forked.published"}


def _states(airflow: AirflowParts, dag_id: str, run_id: str) -> dict[str, int]:
    found = airflow.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return Counter(str(one["state"]) for one in found)
