"""Airflow on PostgreSQL with several schedulers or Celery workers, watched and compared."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from tests.faults.deployments.sources import Kill
from tests.faults.processes.airflow_parts import AirflowParts
from tests.programs import require_program
from tests.waiting import await_condition

TOPIC = "workflow-events"
#: Eight processes that start at once on two cores take their time.
START_SECONDS = 400.0
_COMMAND_SECONDS = 180
_TRIGGER_SECONDS = 180


class Production(AirflowParts):
    """A deployment each of whose parts is known to the database by its name, and may have a host of its own.

    Args:
        home, dags, options: see :class:`AirflowDeployment`.
        packages: what is to be on the ``PYTHONPATH`` of its processes.
        on_database: called as soon as Airflow's tables are there: watches them, starts further parts.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        packages: Path,
        on_database: Callable[[Production], None],
        **options: Any,
    ) -> None:
        super().__init__(home, dags, **options)
        paths = [str(packages), self._environment.get("PYTHONPATH", "")]
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._on_database = on_database
        self.kills: list[Kill] = []

    def start_part(
        self, name: str, *command: str, options: Mapping[str, str] | None = None, **environment: str
    ) -> None:
        """Start a process, see :meth:`AirflowParts.start_part`; it tells the database its name."""
        super().start_part(name, *command, options=options, PGAPPNAME=name, **environment)

    def migrate(self) -> None:
        """Create the database, and do what is to be done before anything starts."""
        super().migrate()
        self._on_database(self)

    def _start(self, component: str) -> None:
        self.start_component(component)

    def run_as(self, name: str, *command: str) -> str:
        """Run a command to its end, by a name that the database sees, and return what it printed."""
        self.start_part(name, *command)
        process = self._processes.pop(name)
        code = process.wait(_COMMAND_SECONDS)
        assert code == 0, f"{' '.join(command)} ended with {code}: {self.log(name)[-2000:]}"
        return self.log(name)

    def start_component(self, name: str, host: str | None = None) -> None:
        """Start ``scheduler``, ``scheduler-2``, ... on a host of its own, if one is named."""
        component = name.removesuffix("-2")
        arguments = ["--port", str(self.port), "--host", "127.0.0.1"] if component == "api-server" else []
        self.start_part(name, "airflow", component, *arguments, **self.on_host(host))

    def start_worker(self, name: str, host: str | None = None, **options: str) -> None:
        """Start a Celery worker with two children; options are those of ``[celery]``."""
        arguments = ["--concurrency", "2", "--celery-hostname", f"{name}@%h", "--skip-serve-logs"]
        own = {f"celery.{option}": value for option, value in options.items()}
        self.start_part(name, "airflow", "celery", "worker", *arguments, options=own, **self.on_host(host))

    def on_host(self, host: str | None) -> dict[str, Any]:
        """What the environment of a process on that host says."""
        if host is None:
            return {}
        (self.home / host).mkdir(exist_ok=True)
        return {"AIRFLOW_HOME": str(self.home / host)}

    def kill_part(self, name: str) -> None:
        """``kill -9`` a process and its children, as the loss of its container does."""
        process = self._processes.pop(name)
        self.kills.append(Kill(name, datetime.now(UTC)))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def await_end(self, name: str) -> int:
        """Wait until a process ends by itself and return its exit code; a worker waits for its tasks."""
        return self._processes.pop(name).wait(_COMMAND_SECONDS)

    def outboxes(self) -> list[Outbox]:
        """The outboxes in files, one for each host that has one."""
        return [
            Outbox(OutboxDatabase(f"sqlite:///{path}"))
            for path in self.home.glob("**/workflow_events/outbox.db")
        ]


def production_options(
    database_url: str, bootstrap_servers: str, *, executor: str, config: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The connections and options of a deployment, for :class:`Production`."""
    extra = {"bootstrap.servers": bootstrap_servers, "topic": TOPIC}
    return {
        "connections": {"workflow_events_default": {"conn_type": "workflow_events", "extra": extra}},
        "config": {
            "core.executor": executor,
            "core.parallelism": "6",
            "database.sql_alchemy_conn": database_url.replace("postgresql:", "postgresql+psycopg2:"),
            "scheduler.max_dagruns_per_loop_to_schedule": "4",
            "workflow_events.listener": "True",
            "workflow_events.source_instance": "production",
            **(config or {}),
        },
    }


#: So that what was killed is noticed within two minutes, rather than five or twelve. A message that a Celery
#: worker had received and not begun dies with it: its task then is queued for too long.
SOON_NOTICED = {
    "scheduler.task_queued_timeout": "120",
    "scheduler.task_queued_timeout_check_interval": "10",
    "scheduler.orphaned_tasks_check_interval": "10",
    "scheduler.task_instance_heartbeat_timeout": "60",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "5",
}


@contextmanager
def running_redis(home: Path) -> Iterator[str]:
    """Run a Redis that keeps nothing, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(home),
    ]
    with (
        (home / "redis.log").open("wb") as log,
        subprocess.Popen(
            [require_program("redis-server"), *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            await_condition(lambda: _answers(port), timeout_seconds=20, what="Redis to answer")
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def trigger_all(airflow: Production, dag_ids: Sequence[str], times: int = 1) -> None:
    """Start runs of these DAGs, each once, though the API server may have been killed a moment ago."""
    for number in range(times):
        for dag_id in dag_ids:
            run_id = f"triggered_{number}_{uuid.uuid4()}"
            airflow.await_condition(
                partial(_is_triggered, airflow, dag_id, run_id), _TRIGGER_SECONDS, f"{dag_id} to be triggered"
            )


def _is_triggered(airflow: Production, dag_id: str, run_id: str) -> bool:
    try:
        airflow.trigger(dag_id, run_id)
    except httpx.HTTPStatusError as error:
        # What came of an attempt whose answer was lost.
        return error.response.status_code == httpx.codes.CONFLICT
    return True
