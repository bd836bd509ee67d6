"""An Airflow whose processes can be ended and started one by one, each with options of its own."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.events import DEFAULT_TOPIC
from airflow_workflow_events.events.identity import lifecycle_event_id
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from demo.deployment import AirflowDeployment
from tests.broker import Broker, event_of
from tests.faults.ledger import Ledger
from tests.waiting import await_condition

DAGS = Path(__file__).parent.parent / "dags"
EVENT_SECONDS = 60
#: In the log of a scheduler whose loop has begun.
SCHEDULER_IS_AT_WORK = "Adopting or resetting orphaned tasks"
_STOP_SECONDS = 20
_LOCAL_EXECUTOR_IS_OVERLOADED_SECONDS = 180


class AirflowParts(AirflowDeployment):
    """A deployment whose parts a test ends, freezes and starts."""

    def start_part(
        self, name: str, *command: str, options: Mapping[str, str] | None = None, **environment: str
    ) -> None:
        """Start a process of this deployment.

        Args:
            name: names its log, and it in :meth:`end_part`.
            command: what follows ``python -m``.
            options: Airflow's options that it alone has, as ``{"section.option": value}``.
            environment: further variables that it alone has.
        """
        own = {
            f"AIRFLOW__{section.upper()}__{option.upper()}": value
            for section, option, value in ((*key.split("."), value) for key, value in (options or {}).items())
        }
        with (self.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self._environment, **own, **environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End every process at once: nothing of it is kept."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        super().stop()

    def end_part(self, name: str) -> None:
        """End a process the way an operator does, and whatever it leaves behind."""
        process = self._processes.pop(name)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def signal_part(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        self._processes[name].send_signal(number)

    def await_end(self, name: str) -> int:
        """Wait until a process ends by itself and return its exit code."""
        code = self._processes[name].wait(_STOP_SECONDS)
        del self._processes[name]  # one that has not ended is left to stop()
        return code

    def pid(self, name: str) -> int:
        """The process id of a part that runs."""
        process = self._processes[name]
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        return process.pid

    def log(self, name: str) -> str:
        """What a part has said so far."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def run_of(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """What Airflow says of a run."""
        found: dict[str, Any] = self.get(f"/dags/{dag_id}/dagRuns/{run_id}")
        return found

    def await_runs(self, dag_id: str, run_ids: list[str], state: str = "success") -> None:
        """Wait until these runs have ended, and check how."""
        for run_id in run_ids:
            assert self.await_run(dag_id, run_id, _LOCAL_EXECUTOR_IS_OVERLOADED_SECONDS) == state

    def outbox(self) -> Outbox:
        """The outbox that the listener uses unless it is told otherwise."""
        return Outbox(OutboxDatabase(f"sqlite:///{self.home}/workflow_events/outbox.db"))

    def connect_to(self, conn_id: str, bootstrap_servers: str) -> None:
        """Store a connection in Airflow's database, or change the one that is there."""
        body = {
            "connection_id": conn_id,
            "conn_type": "workflow_events",
            "extra": json.dumps({"bootstrap.servers": bootstrap_servers}),
        }
        known = {one["connection_id"] for one in self.get("/connections?limit=100")["connections"]}
        if conn_id in known:
            self.request("PATCH", f"/connections/{conn_id}", body)
        else:
            self.post("/connections", body)


def deliveries_of(broker: Broker, run_ids: Iterable[str]) -> dict[str, list[WorkflowEvent]]:
    """What is on the topic of each of these runs, repetitions included, in the order of the log."""
    found: dict[str, list[WorkflowEvent]] = {run_id: [] for run_id in run_ids}
    for event in map(event_of, broker.messages(DEFAULT_TOPIC, 0)):
        if event.workflow_run_id in found:
            found[event.workflow_run_id].append(event)
    return found


def await_deliveries(
    broker: Broker, run_ids: Iterable[str], count: int, timeout_seconds: float = EVENT_SECONDS
) -> dict[str, list[WorkflowEvent]]:
    """What is on the topic of each run, once there are ``count`` different events of each."""
    wanted = list(run_ids)

    def missing() -> int:
        events = deliveries_of(broker, wanted)
        return sum(len({event.event_id for event in of_run}) < count for of_run in events.values())

    await_condition(
        lambda: missing() == 0,
        timeout_seconds=timeout_seconds,
        what=f"{count} events of each of {len(wanted)} runs",
    )
    return deliveries_of(broker, wanted)


def ids_of(run: Mapping[str, Any], source_instance: str, *event_types: str) -> list[str]:
    """The ids of these events of a run, derived from what Airflow's REST API says of it."""
    queued_at, started_at = (dt.datetime.fromisoformat(run[name]) for name in ("queued_at", "start_date"))
    starts = [event_type == "workflow.started" for event_type in event_types]
    return [
        lifecycle_event_id(
            event_type=event_type,
            workflow_id=run["dag_id"],
            workflow_run_id=run["dag_run_id"],
            source_instance=source_instance,
            clear_number=0,
            run_queued_at=queued_at if is_start else None,
            run_started_at=None if is_start else started_at,
        )
        for event_type, is_start in zip(event_types, starts, strict=True)
    ]


def ledger_of(accepted: Mapping[str, list[str]], deliveries: Mapping[str, list[WorkflowEvent]]) -> Ledger:
    """Compare what should be on the topic, ids by ordering key, with what is."""
    arrived = [(event.ordering_key, event.event_id) for events in deliveries.values() for event in events]
    return Ledger.of(accepted, arrived)
