"""What Airflow's database and the topic say, read without a line of the product's code."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tests.programs import require_program

_SQL = Path(__file__).with_name("transitions.sql")
_TOPIC_SECONDS = 60
_ACTIVE = "SELECT count(*) AS count FROM dag_run WHERE state IN ('queued', 'running')"
_RUNNING = "SELECT count(*) AS count FROM task_instance WHERE state = 'running'"
# Airflow 3.1 has it in the serialized DAG alone, where a default is left out.
_FAILING_FAST = "SELECT DISTINCT dag_id FROM serialized_dag WHERE data #>> '{dag,fail_fast}' = 'true'"
_AT_WORK = """
    SELECT count(*) AS count FROM job
    WHERE job_type = :job_type AND state = 'running' AND start_date > :since AND latest_heartbeat > start_date
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A committed change of a run or, with a ``task_id``, of a task instance."""

    at: datetime
    made_by: str
    transaction: int
    dag_id: str
    run_id: str
    task_id: str | None
    map_index: int | None
    try_number: int | None
    operator: str | None
    previous: str | None
    state: str | None
    started_at: datetime | None
    ended_at: datetime | None
    queued_at: datetime | None
    clear_number: int | None
    run_type: str | None


class Kill(NamedTuple):
    """A process of Airflow that was killed, by the name that the database knows it by."""

    part: str
    at: datetime


class AirflowDatabase:
    """Airflow's database in PostgreSQL, whose triggers keep every committed transition."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(
            url.replace("postgresql:", "postgresql+psycopg2:"),
            poolclass=NullPool,
            connect_args={"application_name": "checker"},
        )

    def watch(self) -> None:
        """Keep transitions from now on."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_SQL.read_text())

    def transitions(self) -> list[Transition]:
        """All of them, in the order they were made in."""
        columns = ", ".join(Transition.__dataclass_fields__)
        return [
            Transition(**row) for row in self._rows(f"SELECT {columns} FROM seen_transitions ORDER BY id")
        ]

    def active_runs(self) -> int:
        """How many runs are queued or running."""
        return self._count(_ACTIVE)

    def running_tasks(self) -> int:
        """How many task instances are running."""
        return self._count(_RUNNING)

    def at_work(self, job_type: str, since: datetime) -> bool:
        """Whether a job of this type that started since then has a heartbeat."""
        return self._count(_AT_WORK, job_type=job_type, since=since) > 0

    def dags_failing_fast(self) -> set[str]:
        """The DAGs with ``fail_fast``."""
        return {str(row["dag_id"]) for row in self._rows(_FAILING_FAST)}

    def _count(self, query: str, **parameters: object) -> int:
        return int(self._rows(query, **parameters)[0]["count"])

    def _rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(query), parameters).mappings()]


def messages_of(bootstrap_servers: str, topic: str) -> list[dict[str, Any]]:
    """The values of all messages of a topic, as kcat reads them."""
    command = [
        require_program("kcat", "kafkacat"),
        "-C",
        "-e",
        "-q",
        "-J",
        "-b",
        bootstrap_servers,
        "-t",
        topic,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TOPIC_SECONDS, check=False)
    assert done.returncode == 0, f"kcat ended with {done.returncode}: {done.stderr[-2000:]}"
    return [json.loads(json.loads(line)["payload"]) for line in done.stdout.splitlines()]
