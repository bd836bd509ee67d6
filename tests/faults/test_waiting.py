"""Whoever waits for events gets them, whatever becomes of triggerers and brokers meanwhile."""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

import pytest
from confluent_kafka import Producer

from airflow_workflow_events import DeliveryReport, EmbeddedBroker, WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.events import DEFAULT_TOPIC
from airflow_workflow_events.triggers import WorkflowEventTrigger
from demo.deployment import DeploymentError
from tests.airflow_e2e.watchers import asset_events, position_of, select, watching_triggers
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.processes.airflow_parts import DAGS, AirflowParts
from tests.faults.processes.connections import established, threads
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(3_600)]


_ASSET = "watched"
_INSTANCE = "waiting"
_SECONDS = 180
# A thousand tasks have to be started, on a machine that has other things to do.
_MANY_SECONDS = 1_800
_SENSORS = 4
_COMPLAINTS = 20
# How long a triggerer is taken to be alive after it was killed, in seconds.
_ALIVE_SECONDS = 6
# Every client of librdkafka has one thread of this name.
_CLIENT_THREAD = "rdk:main"
_KILLED = ("tests.faults.processes.airflow_killed_triggerer",)
_OLDER = ("tests.faults.processes.airflow_older_triggerer",)
_USUAL = ("airflow", "triggerer")


#: What is no workflow event: tombstones, no JSON, JSON of other shapes, and much of it.
_POISON: tuple[bytes | None, ...] = (
    None,
    b"",
    b"not JSON",
    b"\xff\xfe",
    b"[]",
    b"null",
    b'{"event_id": 1}',
    b'{"event_type": "workflow.completed", "workflow_id": "watched_0"}',
    b'{"workflow_id": "sensed_0", "payload": "x"}',
    b"[" * 100_000,
    b"x" * 900_000,
)


class Clients(NamedTuple):
    """What a triggerer has open to the brokers."""

    connections: int
    clients: int


@dataclass
class Waiting:
    """An Airflow whose triggerer is killed and started again, a broker, and what its watcher is to see."""

    airflow: AirflowParts
    broker: EmbeddedBroker
    group_id: str
    published: dict[str, list[str]] = field(default_factory=dict)
    _watched_ends: dict[int, int] = field(default_factory=dict)
    _starts: int = 0
    _command: tuple[str, ...] = _USUAL

    @property
    def name(self) -> str:
        """The triggerer that runs, or ran last."""
        return f"triggerer-{self._starts}" if self._starts else "triggerer"

    @property
    def pid(self) -> int:
        return self.airflow.pid(self.name)

    def kill_triggerer(self) -> None:
        """Kill the triggerer and its runner: they are a group of their own."""
        os.killpg(self.pid, signal.SIGKILL)
        self.airflow.await_end(self.name)

    def start_triggerer(self, *command: str) -> None:
        self._starts += 1
        self._command = command or _USUAL
        self.airflow.start_part(self.name, *self._command)

    def use_triggerer(self, *command: str) -> None:
        """See to it that a triggerer of this kind runs, and that it has the watcher."""
        if self._command != (command or _USUAL):
            self.airflow.end_part(self.name)
            self.start_triggerer(*command)
        self.await_watcher()

    def await_watcher(self) -> None:
        """Wait until the watcher is at work in the triggerer that runs."""
        self.airflow.await_condition(
            lambda: (
                watching_triggers(self.airflow, _ASSET)
                and self.position
                and "trigger ID" in self.airflow.log(self.name)
            ),
            _SECONDS,
            "the watcher to be at work",
        )

    @property
    def position(self) -> dict[int, int]:
        return position_of(self.group_id, self.broker.bootstrap_servers, DEFAULT_TOPIC)

    def await_committed(self) -> None:
        """Wait until the position is behind all that was published for the watcher: none comes again."""
        self.airflow.await_condition(
            lambda: all(self.position.get(one, 0) >= end for one, end in self._watched_ends.items()),
            _SECONDS,
            "the watcher's position to be committed",
        )

    def publish(self, *events: WorkflowEvent) -> list[DeliveryReport]:
        with WorkflowEventProducer(self.broker.bootstrap_servers) as producer:
            reports = producer.publish_events(events, timeout=60)
        assert all(report.delivered for report in reports)
        return reports

    def publish_watched(self, count: int) -> None:
        """Publish events that the watcher waits for, and note them as what must become asset events."""
        events = [
            make_event(workflow_id=f"watched_{number % 3}", workflow_run_id=f"run_{number % 5}")
            for number in range(count)
        ]
        for report in self.publish(*events):
            assert report.partition is not None
            assert report.offset is not None
            before = self._watched_ends.get(report.partition, 0)
            self._watched_ends[report.partition] = max(before, report.offset + 1)
        for event in events:
            self.published.setdefault(event.ordering_key, []).append(event.event_id)

    def publish_poison(self) -> None:
        """Put on the topic what is no workflow event, under keys that events have too."""
        producer = Producer({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 0})
        for number, value in enumerate(_POISON):
            key = f"watched_{number % 3}/run_{number % 5}"
            headers: list[tuple[str, str | bytes | None]] = []
            if number % 2:
                headers = [("ce_id", b"\xff"), ("content-type", b"application/json")]
            producer.produce(DEFAULT_TOPIC, value=value, key=key, headers=headers)
        assert producer.flush(60) == 0

    def clients(self, port: int) -> Clients:
        """What the triggerer and its runner have open to the broker."""
        return Clients(established(self.pid, port), threads(self.pid, _CLIENT_THREAD))

    def await_running(self, count: int) -> None:
        """Wait until the triggerer has begun to run so many triggers of tasks."""
        folder = self.airflow.logs / "airflow" / "dag_id=many_sensors"
        self.airflow.await_condition(
            lambda: len(list(folder.rglob("*.trigger.*.log"))) >= count, _SECONDS, f"{count} triggers to run"
        )

    def await_ledger(self) -> Ledger:
        """Compare what the watcher was to see with what became asset events, once none is missing."""

        def ledger() -> Ledger:
            stored = asset_events(self.airflow, _ASSET)
            return Ledger.of(self.published, ((event.ordering_key, event.event_id) for event in stored))

        self.airflow.await_condition(lambda: not ledger().lost, _SECONDS, "the watcher's events to be stored")
        return ledger()

    def sense(self) -> str:
        """Start a run of sensors; return its id once all are deferred."""
        run_id = self.airflow.trigger("sensors", f"run__{uuid.uuid4()}")
        self.await_states("sensors", run_id, {"deferred": _SENSORS})
        return run_id

    def publish_sensed(self, run_id: str) -> None:
        """Publish what the sensors of a run wait for."""
        events = [
            make_event(workflow_id=f"sensed_{number}", workflow_run_id=run_id) for number in range(_SENSORS)
        ]
        self.publish(*events)

    def states(self, dag_id: str, run_id: str) -> Counter[str]:
        query = "SELECT state FROM task_instance WHERE dag_id = ? AND run_id = ? AND task_id <> 'names'"
        return Counter(state for (state,) in select(self.airflow, query, dag_id, run_id))

    def await_states(self, dag_id: str, run_id: str, states: dict[str, int], seconds: int = _SECONDS) -> None:
        def are_reached() -> bool:
            found = self.states(dag_id, run_id)
            assert not found["failed"] or "failed" in states, f"{run_id} has {found}{self.complaints()}"
            return found == states

        try:
            self.airflow.await_condition(are_reached, seconds, f"the sensors of {run_id} to be {states}")
        except DeploymentError as error:
            raise AssertionError(
                f"{error}; they are {self.states(dag_id, run_id)}{self.complaints()}"
            ) from None

    def complaints(self) -> str:
        """The last warnings and errors of the scheduler and the triggerer, for whoever asks why."""
        lines = [
            f"\n{part}: {line}"
            for part in ("scheduler", self.name)
            for line in self.airflow.log(part).splitlines()
            if any(level in line for level in ("[warning", "[error", "[critical"))
        ]
        return "".join(lines[-_COMPLAINTS:])

    def await_success(self, run_id: str) -> None:
        self.await_states("sensors", run_id, {"success": _SENSORS})


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    home = tmp_path_factory.mktemp("waiting")
    with EmbeddedBroker(topics={DEFAULT_TOPIC: 4}) as broker, pytest.MonkeyPatch.context() as patch:
        extra = {"bootstrap.servers": broker.bootstrap_servers}
        connections = {"workflow_events_default": {"conn_type": "workflow_events", "extra": extra}}
        config = {
            "workflow_events.source_instance": _INSTANCE,
            "triggerer.capacity": "2000",
            "triggerer.job_heartbeat_sec": "1",
            "triggerer.triggerer_health_check_threshold": str(_ALIVE_SECONDS),
            "scheduler.max_tis_per_query": "64",
        }
        patch.setenv("AIRFLOW__WORKFLOW_EVENTS__SOURCE_INSTANCE", _INSTANCE)
        group_id = WorkflowEventTrigger(workflow_id="watched_*").effective_group_id
        with AirflowParts(home, DAGS / "waiting", connections=connections, config=config) as airflow:
            airflow.start()
            airflow.await_dags({"sensors", "many_sensors", "starts_for_each"})
            yield Waiting(airflow, broker, group_id)


@pytest.fixture
def waiting(deployed: Waiting) -> Waiting:
    """A triggerer as usual, with the watcher at work."""
    deployed.use_triggerer()
    return deployed


def test_a_killed_triggerer_has_nobody_miss_an_event(
    waiting: Waiting, scale: Scale, note_fault: NoteFault
) -> None:
    kills, count = 0, scale.of(40, 12)
    for number in range(scale.of(6, 1)):
        # Armed before or after storing, in turn; what else is under way then is a matter of chance.
        moment = ("before", "after")[number % 2]
        waiting.await_committed()  # or what comes again would set off the one that is armed too early
        waiting.kill_triggerer()
        waiting.start_triggerer(*_KILLED, moment, str(scale.of(1 + 5 * number, 4)))
        waiting.await_watcher()
        run_id = waiting.sense()
        waiting.publish_watched(count)
        assert waiting.airflow.await_end(waiting.name) == -signal.SIGKILL
        waiting.publish_watched(count)
        waiting.publish_sensed(run_id)
        waiting.start_triggerer()
        waiting.await_success(run_id)
        waiting.await_ledger()
        kills += 2
    ledger = waiting.await_ledger()
    note_fault(
        "kill -9 of the triggerer, an event fired and not stored, others come",
        kills,
        ledger,
        f"{kills // 2 * _SENSORS} sensors found theirs",
    )
    assert (ledger.lost, ledger.unknown) == (0, 0)


def test_an_outage_of_the_brokers_fails_no_trigger(
    waiting: Waiting, scale: Scale, note_fault: NoteFault
) -> None:
    seconds = scale.of(60, 4)
    run_id = waiting.sense()
    before = watching_triggers(waiting.airflow, _ASSET)
    waiting.broker.take_down()
    try:
        began = monotonic()
        late_run_id = waiting.sense()  # its sensors begin to wait while there is no broker
        await_condition(
            lambda: monotonic() >= began + seconds,
            timeout_seconds=_SECONDS,
            what="the outage to last as long as it is to",
        )
    finally:
        waiting.broker.bring_up()
    was_down = monotonic() - began
    waiting.publish_watched(20)
    waiting.publish_sensed(run_id)
    waiting.publish_sensed(late_run_id)
    waiting.await_success(run_id)
    waiting.await_success(late_run_id)
    ledger = waiting.await_ledger()

    note_fault(
        f"Kafka down for {was_down:.0f} s, sensors and a watcher wait",
        1,
        ledger,
        f"no trigger failed; {2 * _SENSORS} sensors found their events",
    )
    assert (ledger.lost, ledger.unknown) == (0, 0)
    assert watching_triggers(waiting.airflow, _ASSET) == before
    assert "trigger failed" not in waiting.airflow.log(waiting.name).lower()


def test_what_is_no_event_is_passed_over(waiting: Waiting, scale: Scale, note_fault: NoteFault) -> None:
    run_id = waiting.sense()
    pid = waiting.pid
    times = scale.of(25, 2)
    for _ in range(times):
        waiting.publish_poison()
        waiting.publish_watched(2)
        waiting.await_ledger()  # the embedded broker keeps 5 MiB of a partition, read or not
    waiting.publish_sensed(run_id)
    waiting.publish_poison()

    waiting.await_success(run_id)
    ledger = waiting.await_ledger()
    note_fault(
        "tombstones, other text, other shapes, 900 kB on the topic",
        (times + 1) * len(_POISON),
        ledger,
        f"{_SENSORS} sensors found their events, the same triggerer at the end",
    )
    assert (ledger.lost, ledger.unknown) == (0, 0)
    assert waiting.pid == pid


def test_a_thousand_sensors_and_a_watcher_are_one_consumer(
    waiting: Waiting, scale: Scale, note_fault: NoteFault
) -> None:
    count = scale.of(1_000, 200)
    port = int(waiting.broker.bootstrap_servers.rpartition(":")[2])
    run_id = waiting.airflow.trigger("many_sensors", f"run__{uuid.uuid4()}", conf={"count": count})
    began = monotonic()
    waiting.await_states("many_sensors", run_id, {"deferred": count}, seconds=_MANY_SECONDS)
    deferred_after = monotonic() - began
    waiting.await_running(count)
    with_many = waiting.clients(port)

    waiting.publish(
        *(make_event(workflow_id=f"many_{number}", workflow_run_id=run_id) for number in range(count))
    )
    began = monotonic()
    waiting.await_states("many_sensors", run_id, {"success": count}, seconds=_MANY_SECONDS)
    ended_after = monotonic() - began
    waiting.await_ledger()
    alone = waiting.clients(port)  # afterwards: a triggerer that has just started is not connected yet

    note_fault(
        f"{count:,} sensors wait in one triggerer",
        1,
        remark=f"{with_many.connections} connections to the broker, as with the watcher alone, of "
        f"{with_many.clients} clients; deferred in {deferred_after:.0f} s, all ended in "
        f"{ended_after:.0f} s",
    )
    assert with_many == alone
    assert alone.clients == 2, "the consumer, and the client that keeps the watcher's position"


def test_before_airflow_3_3_no_event_is_missed_either(
    deployed: Waiting, scale: Scale, note_fault: NoteFault
) -> None:
    """There nobody says when an event was stored; it is committed a while after it was handed over."""
    deployed.use_triggerer(*_OLDER)
    run_id = deployed.sense()
    kills = scale.of(4, 1)
    for _ in range(kills):
        deployed.publish_watched(10)
        deployed.await_ledger()  # all are stored, and not yet committed
        deployed.kill_triggerer()
        deployed.publish_watched(10)
        deployed.start_triggerer(*_OLDER)
        deployed.await_ledger()
    deployed.publish_sensed(run_id)
    deployed.await_success(run_id)
    ledger = deployed.await_ledger()

    note_fault("kill -9 of a triggerer without shared streams (Airflow 3.1, 3.2)", kills, ledger)
    assert (ledger.lost, ledger.unknown) == (0, 0)
