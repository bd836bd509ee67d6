"""Several processes have a say in one run: whoever dedupes by id ends with the events of what happened.

The schedulers share a metadata database in PostgreSQL, which takes two of them; SQLite takes one.
"""

from __future__ import annotations

import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from airflow_workflow_events import WorkflowEvent
from tests.airflow_versions import AIRFLOW, NO_ASYNC_DATABASE
from tests.broker import Broker
from tests.databases import PostgreSQL
from tests.faults.conftest import NoteFault, Scale
from tests.faults.processes.airflow_parts import (
    DAGS,
    EVENT_SECONDS,
    SCHEDULER_IS_AT_WORK,
    AirflowParts,
    await_deliveries,
    deliveries_of,
    ids_of,
    ledger_of,
)
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(600)]

_CONN_ID = "workflow_events_default"
_INSTANCE = "raced"
_SCHEDULERS = ("scheduler", "scheduler-2")
_DAGS = {"instant", "short", "waiting", "timing_out"}
# Airflow 3.1 gives no reason for a start.
_STARTED = "started" if AIRFLOW >= (3, 2) else None

Happening = tuple[str, str | None, int | None]
"""Type and reason of a run's event, or type, task and try of a task's; and how often the run was cleared."""


@dataclass(frozen=True)
class Raced:
    """An Airflow with two schedulers."""

    airflow: AirflowParts
    broker: Broker

    def trigger(self, dag_id: str) -> str:
        """Start a run and return its id."""
        return self.airflow.trigger(dag_id, f"raced__{uuid.uuid4()}")

    def patch(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run's state by hand."""
        self.airflow.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def await_start(self, dag_id: str, run_id: str) -> None:
        """Wait until a run and its one task have started and said so."""
        await_deliveries(self.broker, [run_id], 2)

    def deduped(self, run_id: str, count: int) -> list[WorkflowEvent]:
        """What a consumer that dedupes by id has of a run in the end, which is after ``count`` events."""
        await_deliveries(self.broker, [run_id], count)
        # What else Airflow fires has been fired once a run that started later is over and its events are out.
        later = self.trigger("instant")
        self.airflow.await_runs("instant", [later])
        outbox = self.airflow.outbox()
        await_condition(
            lambda: outbox.totals().pending == 0, timeout_seconds=EVENT_SECONDS, what="an empty outbox"
        )
        outbox.database.close()
        events = deliveries_of(self.broker, [run_id])[run_id]
        return list({event.event_id: event for event in events}.values())


@pytest.fixture(scope="module")
def raced(
    embedded_broker: Broker, postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Raced]:
    home = tmp_path_factory.mktemp("raced")
    config = {
        "database.sql_alchemy_conn": postgresql.new_database().replace("postgresql:", "postgresql+psycopg2:"),
        "database.sql_alchemy_conn_async": NO_ASYNC_DATABASE,
        # So that one scheduler's loop does not take all there is.
        "scheduler.max_dagruns_per_loop_to_schedule": "2",
        "scheduler.max_dagruns_to_create_per_loop": "2",
        "workflow_events.listener": "True",
        "workflow_events.source_instance": _INSTANCE,
    }
    with AirflowParts(home, DAGS / "races", config=config) as airflow:
        airflow.start()
        airflow.start_part("scheduler-2", "airflow", "scheduler")
        airflow.connect_to(_CONN_ID, embedded_broker.bootstrap_servers)
        airflow.await_dags(_DAGS)
        await_condition(
            lambda: SCHEDULER_IS_AT_WORK in airflow.log("scheduler-2"),
            timeout_seconds=60,
            what="the second scheduler to be at work",
        )
        yield Raced(airflow, embedded_broker)


def happenings(events: list[WorkflowEvent]) -> Counter[Happening]:
    """What happened, by events of different ids: type, reason or task, and how often the run was cleared."""
    found: Counter[Happening] = Counter()
    for event in events:
        data = event.payload.data
        what = data["reason"] if data["task"] is None else data["task"]["task_id"]
        found[str(event.event_type), what, data["clear_number"]] += 1
    return found


def once(*what: Happening) -> Counter[Happening]:
    return Counter(what)


def test_two_schedulers_on_one_database_publish_each_start_and_end_of_a_run_once(
    raced: Raced, scale: Scale, note_fault: NoteFault
) -> None:
    airflow = raced.airflow
    pids = [airflow.pid(name) for name in _SCHEDULERS]
    run_ids = [raced.trigger("instant") for _ in range(scale.of(60, 12))]
    airflow.await_runs("instant", run_ids)
    deliveries = await_deliveries(raced.broker, run_ids, 2)
    runs = {run_id: airflow.run_of("instant", run_id) for run_id in run_ids}
    expected = {
        f"instant/{run_id}": ids_of(run, _INSTANCE, "workflow.started", "workflow.completed")
        for run_id, run in runs.items()
    }
    ledger = ledger_of(expected, deliveries)
    logs = [airflow.log(name) for name in _SCHEDULERS]
    shares = [sum(f"Marking run <DagRun instant @ None: {one}," in log for one in run_ids) for log in logs]
    note_fault(
        "two schedulers on one database", len(run_ids), ledger, f"ended by each: {shares[0]} and {shares[1]}"
    )
    assert (ledger.lost, ledger.unknown, ledger.disordered) == (0, 0, 0)
    assert [airflow.pid(name) for name in _SCHEDULERS] == pids


def test_two_processes_that_report_one_run_at_once_give_its_events_the_ids_they_have(
    raced: Raced, scale: Scale, note_fault: NoteFault
) -> None:
    airflow, times = raced.airflow, scale.of(5, 1)
    run_ids = [raced.trigger("instant") for _ in range(times)]
    airflow.await_runs("instant", run_ids)
    before = await_deliveries(raced.broker, run_ids, 2)
    for run_id in run_ids:
        names = [f"{name}-{run_id}" for name in ("one", "other")]
        for name in names:
            airflow.start_part(name, "tests.faults.processes.airflow_hooks_of_run", "instant", run_id)
        await_condition(
            lambda names=names: all("ready" in airflow.log(name).splitlines() for name in names),  # type: ignore[misc]
            timeout_seconds=60,
            what="both to have loaded the run",
        )
        for name in names:
            airflow.signal_part(name, signal.SIGUSR1)
        for name in names:
            assert airflow.await_end(name) == 0, airflow.log(name)
            assert "no event was published" not in airflow.log(name)
    expected = {
        f"instant/{run_id}": [event.event_id for event in events] for run_id, events in before.items()
    }
    for run_id in run_ids:
        raced.deduped(run_id, 2)
    ledger = ledger_of(expected, deliveries_of(raced.broker, run_ids))
    note_fault("two processes report one run at once", times, ledger, "repeated under the same ids")
    assert (ledger.lost, ledger.unknown) == (0, 0)
    assert ledger.repeated >= 2 * times


def test_a_run_that_times_out_has_failed_once_and_says_why(raced: Raced, note_fault: NoteFault) -> None:
    run_id = raced.trigger("timing_out")
    assert raced.airflow.await_run("timing_out", run_id) == "failed"
    found = happenings(raced.deduped(run_id, 2))
    note_fault("a run times out", 1, remark=f"{found.total()} events, each once")
    # The task may not have started by then. That it was cut off Airflow tells nobody.
    found.pop(("task.started", "wait", 0), None)
    assert found == once(("workflow.started", _STARTED, 0), ("workflow.failed", "timed_out", 0))


@pytest.mark.parametrize(("state", "outcome"), [("success", "completed"), ("failed", "failed")])
def test_a_run_that_is_marked_by_hand_ends_once(
    raced: Raced, note_fault: NoteFault, state: str, outcome: str
) -> None:
    run_id = raced.trigger("waiting")
    raced.await_start("waiting", run_id)
    raced.patch("waiting", run_id, state)
    # Before 3.3 Airflow tells nobody of the task that ends with the run.
    is_told_of_task = AIRFLOW >= (3, 3)
    found = happenings(raced.deduped(run_id, 3 + is_told_of_task))
    note_fault(f"a run is marked {state} by hand", 1, remark=f"{found.total()} events, each once")
    expected = once(
        ("workflow.started", _STARTED, 0),
        ("task.started", "wait", 0),
        (f"workflow.{outcome}", "marked_manually", 0),
    )
    if is_told_of_task:
        expected += once((f"task.{outcome}", "wait", 0))
    assert found == expected


def test_a_cleared_run_and_a_requeued_one_happen_again_under_new_ids(
    raced: Raced, note_fault: NoteFault
) -> None:
    airflow, run_id = raced.airflow, raced.trigger("short")
    airflow.await_runs("short", [run_id])
    first = once(
        ("workflow.started", _STARTED, 0),
        ("task.started", "work", 0),
        ("task.completed", "work", 0),
        ("workflow.completed", "success", 0),
    )
    assert happenings(raced.deduped(run_id, 4)) == first

    airflow.post(
        "/dags/short/clearTaskInstances",
        {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True},
    )
    again = Counter({(kind, what, 1): count for (kind, what, _), count in first.items()})
    cleared = raced.deduped(run_id, 8)
    assert happenings(cleared) == first + again

    # Queued by hand it starts and ends anew, and as nobody cleared it its task does not.
    raced.patch("short", run_id, "queued")
    requeued = happenings(raced.deduped(run_id, 10))
    note_fault("a run is cleared, then queued, by hand", 1, remark=f"{requeued.total()} events, each once")
    assert requeued == first + again + once(
        ("workflow.started", _STARTED, 1), ("workflow.completed", "success", 1)
    )
