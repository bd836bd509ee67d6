"""The scheduler lives with the listener, wherever the connection is kept and whatever has become of Kafka."""

from __future__ import annotations

import json
import socket
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median

import pytest

from airflow_workflow_events.outbox.database import _GATE_SECONDS, LOCK_TIMEOUT_MS
from tests.broker import Broker
from tests.docs.forwarder import Forwarder
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.processes.airflow_parts import (
    DAGS,
    SCHEDULER_IS_AT_WORK,
    AirflowParts,
    await_deliveries,
    deliveries_of,
    ids_of,
    ledger_of,
)
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(900)]

_CONN_ID = "workflow_events_default"
_OTHER_CONN_ID = "kept_elsewhere"
_INSTANCE = "faulty"
_LISTENER_ON = {"workflow_events.listener": "True"}
_LISTENER_OFF = {"workflow_events.listener": "False"}
# The official provider's plugin, which asks the brokers for its topic on the scheduler's thread.
_OFFICIAL_PLUGIN = _LISTENER_OFF | {"kafka_event_producer.dag_run_events_enabled": "True"}
# What Airflow says when a hook uses the scheduler's session for itself, and what becomes of it then.
_SIGNS_OF_BREAKAGE = ("UNEXPECTED COMMIT", "DetachedInstanceError", "no event was published")
# Airflow's loop, idle for a second at most, takes a run up in the next one.
_LOOP_SECONDS = 1.0
# A delivery that is under way when the broker appears, and then the longest pause of a relay.
_RECOVERY_SECONDS = 120


@dataclass
class Scheduled:
    """An Airflow whose scheduler is started with the options a test needs."""

    airflow: AirflowParts
    broker: Broker
    _starts: int = field(default=0)

    def restart_scheduler(self, options: Mapping[str, str], **environment: str) -> None:
        """End the scheduler and start it with options of its own; returns once it is at work."""
        self.airflow.end_part(self.name)
        self._starts += 1
        self.airflow.start_part(
            self.name,
            "tests.faults.processes.airflow_timed_scheduler",
            str(self._timings),
            options=options,
            **environment,
        )
        await_condition(
            lambda: SCHEDULER_IS_AT_WORK in self.airflow.log(self.name),
            timeout_seconds=60,
            what="the scheduler to be at work",
        )

    @property
    def name(self) -> str:
        """The scheduler that runs."""
        return f"scheduler-{self._starts}" if self._starts else "scheduler"

    def hook_seconds(self) -> list[float]:
        """How long each of the listener's hooks on runs took in the scheduler that runs."""
        lines = [line.split() for line in self._timings.read_text().splitlines()]
        return [float(seconds) for hook, seconds in lines if hook.startswith("on_dag_run")]

    @property
    def _timings(self) -> Path:
        return self.airflow.home / f"{self.name}.timings"

    def run_many(self, count: int) -> list[str]:
        """Trigger that many runs at once and return their ids once all have ended well."""
        pid = self.airflow.pid(self.name)
        run_ids = [self.airflow.trigger("small", f"many__{uuid.uuid4()}") for _ in range(count)]
        self.airflow.await_runs("small", run_ids)
        assert self.airflow.pid(self.name) == pid
        return run_ids

    def await_ledger(self, run_ids: list[str], timeout_seconds: float = 60) -> Ledger:
        """Compare the events that these runs must have with those they have, once none is missing."""
        runs = {run_id: self.airflow.run_of("small", run_id) for run_id in run_ids}
        deliveries = await_deliveries(self.broker, run_ids, 2, timeout_seconds)
        return ledger_of(
            {
                f"small/{run_id}": ids_of(run, _INSTANCE, "workflow.started", "workflow.completed")
                for run_id, run in runs.items()
            },
            deliveries,
        )

    def assert_unbroken(self) -> None:
        """Check that the scheduler lives and that nothing it said tells of a broken session."""
        self.airflow.pid(self.name)
        log = self.airflow.log(self.name)
        assert [sign for sign in _SIGNS_OF_BREAKAGE if sign in log] == []

    def start_latency(self) -> tuple[float, str]:
        """Seconds from a run's queueing to its start, and the run that made events meanwhile."""
        ids = {
            dag_id: self.airflow.trigger(dag_id, f"late__{uuid.uuid4()}") for dag_id in ("small", "second")
        }
        for dag_id, run_id in ids.items():
            self.airflow.await_runs(dag_id, [run_id])
        run = self.airflow.run_of("second", ids["second"])
        return (_time(run["start_date"]) - _time(run["queued_at"])).total_seconds(), ids["small"]


@pytest.fixture(scope="module")
def scheduled(embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduled]:
    home = tmp_path_factory.mktemp("scheduled")
    # On in the scheduler alone: the other processes' relays would go on with the producers they have.
    config = _LISTENER_OFF | {"workflow_events.source_instance": _INSTANCE}
    with AirflowParts(home, DAGS / "scheduler", config=config) as airflow:
        airflow.start()
        airflow.await_dags({"small", "second"})
        yield Scheduled(airflow, embedded_broker)


def test_a_connection_in_airflows_database_leaves_the_scheduler_whole(
    scheduled: Scheduled, scale: Scale, note_fault: NoteFault
) -> None:
    scheduled.airflow.connect_to(_CONN_ID, scheduled.broker.bootstrap_servers)
    scheduled.restart_scheduler(_LISTENER_ON)
    run_ids = scheduled.run_many(scale.of(50, 8))
    ledger = scheduled.await_ledger(run_ids)
    note_fault("scheduler, connection in its database", len(run_ids), ledger, "the same process at the end")
    assert ledger == Ledger(2 * len(run_ids), lost=0, repeated=0, disordered=0, unknown=0)
    scheduled.assert_unbroken()


@pytest.mark.parametrize("kept_in", ["environment", "secrets backend"])
def test_a_connection_that_is_kept_elsewhere_leaves_the_scheduler_whole(
    scheduled: Scheduled, scale: Scale, note_fault: NoteFault, tmp_path: Path, kept_in: str
) -> None:
    if not scale.full and kept_in == "environment":
        pytest.skip("one of the two is sample enough")
    connection = json.dumps(
        {
            "conn_type": "workflow_events",
            "extra": {"bootstrap.servers": scheduled.broker.bootstrap_servers},
        }
    )
    options = _LISTENER_ON | {"workflow_events.conn_id": _OTHER_CONN_ID}
    environment = {}
    if kept_in == "environment":
        environment[f"AIRFLOW_CONN_{_OTHER_CONN_ID.upper()}"] = connection
    else:
        file = tmp_path / "connections.json"
        file.write_text(json.dumps({_OTHER_CONN_ID: json.loads(connection)}))
        options |= {
            "secrets.backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
            "secrets.backend_kwargs": json.dumps({"connections_file_path": str(file)}),
        }
    scheduled.restart_scheduler(options, **environment)
    run_ids = scheduled.run_many(scale.of(10, 4))
    ledger = scheduled.await_ledger(run_ids)
    note_fault(f"scheduler, connection in the {kept_in}", len(run_ids), ledger)
    assert ledger == Ledger(2 * len(run_ids), lost=0, repeated=0, disordered=0, unknown=0)
    scheduled.assert_unbroken()


@pytest.mark.parametrize("absence", ["silent", "closed"])
def test_scheduling_does_not_wait_for_a_broker_that_is_away_and_nothing_is_lost(
    scheduled: Scheduled, scale: Scale, note_fault: NoteFault, absence: str
) -> None:
    if not scale.full and absence == "closed":
        pytest.skip("a broker that never answers is the worse of the two")
    modes = {"listener off": _LISTENER_OFF, "listener on": _LISTENER_ON}
    if scale.full and absence == "silent":
        # The listener comes last, as it is at work when the broker appears.
        modes = {"official plugin": _OFFICIAL_PLUGIN, **modes}
    latencies: dict[str, list[float]] = defaultdict(list)
    hook_seconds: list[float] = []
    run_ids: list[str] = []
    with ExitStack() as stack:
        hole = stack.enter_context(_hole(silent=absence == "silent"))
        address = f"127.0.0.1:{hole.getsockname()[1]}"
        scheduled.airflow.connect_to(_CONN_ID, address)
        for _ in range(scale.of(2 if absence == "silent" else 1, 1)):
            for mode, options in modes.items():
                scheduled.restart_scheduler(options, AIRFLOW_CONN_KAFKA_DEFAULT=_official_connection(address))
                for _ in range(scale.of(12, 3)):
                    latency, run_id = scheduled.start_latency()
                    latencies[mode].append(latency)
                    if mode == "listener on":
                        run_ids.append(run_id)
                if mode == "listener on":
                    hook_seconds += scheduled.hook_seconds()
        assert deliveries_of(scheduled.broker, run_ids) == {run_id: [] for run_id in run_ids}
        if absence == "silent":
            hole.close()
            stack.enter_context(Forwarder(int(address.split(":")[1]), scheduled.broker.bootstrap_servers))
        else:
            scheduled.airflow.connect_to(_CONN_ID, scheduled.broker.bootstrap_servers)
        ledger = scheduled.await_ledger(run_ids, _RECOVERY_SECONDS)
    scheduled.assert_unbroken()
    words = [f"{mode} {_median_and_maximum(values)}" for mode, values in latencies.items()]
    note_fault(
        f"scheduler, broker {absence}",
        len(run_ids),
        ledger,
        f"queued to start: {'; '.join(words)}; in hooks {_median_and_maximum(hook_seconds)}",
    )
    assert (ledger.lost, ledger.disordered, ledger.unknown) == (0, 0, 0)
    assert len(hook_seconds) >= 2 * len(run_ids)
    # A hook waits for the outbox alone, and the outbox bounds that.
    assert max(hook_seconds) < LOCK_TIMEOUT_MS / 1000 + _GATE_SECONDS
    # The loop's idling decides how soon a run starts, not what the listener does in between.
    assert median(latencies["listener on"]) < 3 * median(latencies["listener off"]) + _LOOP_SECONDS


@contextmanager
def _hole(*, silent: bool) -> Iterator[socket.socket]:
    """A port of one's own that nobody reads from, or that refuses connections."""
    with closing(socket.socket()) as hole:
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind(("127.0.0.1", 0))
        if silent:
            hole.listen(1_024)  # the kernel takes connections, and there it ends
        yield hole


def _official_connection(address: str) -> str:
    return json.dumps({"conn_type": "kafka", "extra": {"bootstrap.servers": address}})


def _median_and_maximum(seconds: list[float]) -> str:
    return f"{median(seconds):.3g} s (at most {max(seconds):.3g} s)"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
