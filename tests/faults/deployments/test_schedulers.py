"""Two schedulers on one PostgreSQL, all kinds of runs, and everything killed in turn."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.conftest import NoteFault
from tests.faults.deployments import operations
from tests.faults.deployments.production import SOON_NOTICED, START_SECONDS, trigger_all
from tests.faults.deployments.watched import MARKS, Watched, watched_deployment
from tests.waiting import await_condition

pytestmark = [*MARKS, pytest.mark.timeout(3000)]

_DAGS = Path(__file__).parent / "dags"
_ALL = [
    "plain",
    "retrying",
    "skipping",
    "mapped",
    "grouped",
    "empty",
    "deferring",
    "rescheduling",
    "failing",
    "failing_fast",
    "task_timing_out",
    "run_timing_out",
    "producing",
]
_OTHERS = ["long", "changing", "deleted", "consuming", "backfilled"]
#: With the type of its job in Airflow's database; the API server has none.
_KILLED = {
    "scheduler": "SchedulerJob",
    "scheduler-2": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
    "api-server": None,
}
_ROUNDS = 4
_AT_WORK_SECONDS = 180


@contextmanager
def two_schedulers(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, config: Mapping[str, str]
) -> Iterator[Watched]:
    """Everything on one host, with one outbox in a file."""
    dags = tmp_path / "dags"
    shutil.copytree(_DAGS, dags)
    with watched_deployment(
        tmp_path,
        packages,
        postgresql,
        kafka,
        dags=dags,
        executor="LocalExecutor",
        config={"dag_processor.min_file_process_interval": "10", "core.parallelism": "8", **config},
        on_database=lambda airflow: airflow.start_component("scheduler-2"),
    ) as watched:
        watched.airflow.start(START_SECONDS)
        watched.airflow.await_dags({*_ALL, *_OTHERS}, START_SECONDS)
        yield watched


def test_two_schedulers_tell_what_they_did_and_what_was_done_by_hand(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, note_fault: NoteFault
) -> None:
    with two_schedulers(tmp_path, packages, postgresql, kafka, {}) as watched:
        trigger_all(watched.airflow, _ALL, times=2)
        operations.backfill(watched.airflow)
        operations.operate(watched)
        operations.change_file(watched, tmp_path / "dags")
        watched.await_quiet()
        found = watched.compare()
    note_fault(
        "two schedulers; marks, clears, a backfill, a changed and a deleted DAG", 1, remark=found.summary()
    )
    assert found.wrong == [], found.details()


def replace_part(watched: Watched, name: str) -> None:
    """Kill a part while tasks run, and wait until the one that replaces it does its work."""
    airflow, database = watched.airflow, watched.database
    # They may not begin, if what was killed before is not noticed yet.
    await_condition(
        lambda: database.running_tasks() or not database.active_runs(),
        timeout_seconds=_AT_WORK_SECONDS,
        what="a task to run",
    )
    airflow.kill_part(name)
    airflow.start_component(name)
    job_type = _KILLED[name]
    airflow.await_condition(
        lambda: airflow._healthy() and (job_type is None or database.at_work(job_type, airflow.kills[-1].at)),
        _AT_WORK_SECONDS,
        f"{name} to be at work again",
    )


def test_every_difference_has_a_cause_after_twenty_kills_and_two_restarts_of_kafka(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, note_fault: NoteFault
) -> None:
    chance = random.Random(1)
    with two_schedulers(tmp_path, packages, postgresql, kafka, SOON_NOTICED) as watched:
        for number in range(_ROUNDS):
            if number % 2:
                kafka.kill(1)
            for position, name in enumerate(chance.sample(list(_KILLED), len(_KILLED))):
                trigger_all(watched.airflow, ["long", *_ALL[position :: len(_KILLED)]])
                replace_part(watched, name)
            if number % 2:
                kafka.start_broker(1)
        watched.await_quiet()
        found = watched.compare()
    kills = _ROUNDS * len(_KILLED)
    note_fault("two schedulers; every process killed, Kafka restarted twice", kills, remark=found.summary())
    print(found.details())
    assert found.wrong == [], found.details()
