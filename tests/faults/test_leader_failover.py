"""A partition's leader is killed under load, again and again: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.errors import WorkflowEventsError
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.kafka.reports import DeliveryReport
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests import broker as brokers
from tests.brokers.jvm import KafkaCluster
from tests.brokers.metadata import metadata_from
from tests.conftest import running_cluster
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.waiting import await_condition

# In one process, so that the tests share the cluster, whose start takes longer than the rest of a sample.
pytestmark = [pytest.mark.real_kafka, pytest.mark.xdist_group("three_brokers"), pytest.mark.timeout(1_500)]

_KEYS = 40
_EVENTS_AT_ONCE = 25
_PAUSE_SECONDS = 0.05  # 500 events a second
_PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def three_brokers(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """Three replicas of everything, two of which must have an event before it is confirmed."""
    directory = tmp_path_factory.mktemp("three")
    with running_cluster(pytestconfig, directory, brokers=3, auto_create_topics=False) as cluster:
        yield cluster


class Load:
    """Events of many runs in turn, at a steady pace, from a thread of its own.

    Args:
        emit: takes each event; must not wait for the brokers.
    """

    def __init__(self, emit: Callable[[WorkflowEvent], None]) -> None:
        self.emitted: dict[str, list[str]] = defaultdict(list)
        self._emit = emit
        self._stop = threading.Event()
        self._numbers = count()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Emit meanwhile."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            for _ in range(_EVENTS_AT_ONCE):
                number = next(self._numbers)
                event = make_event(workflow_run_id=f"run{number % _KEYS}", event_id=f"e{number:07}")
                self.emitted[event.ordering_key].append(event.event_id)
                self._emit(event)


def kill_leaders(cluster: KafkaCluster, topic: str, times: int, confirmed: Callable[[], int]) -> None:
    """Kill the leader of a partition, each time once the load flows and every replica is in sync again."""
    for _ in range(times):
        await_in_sync(cluster, topic)
        await_more(confirmed, "events to be confirmed before a kill")
        leader = cluster.leader(topic, 0)
        cluster.kill(leader)

        def moved(killed: int = leader) -> bool:
            return cluster.leader(topic, 0) != killed

        await_condition(moved, timeout_seconds=_PATIENCE_SECONDS, what="another leader")
        await_more(confirmed, "events to be confirmed by the new leader")
        cluster.start_broker(leader)


def await_more(confirmed: Callable[[], int], what: str) -> None:
    before = confirmed()
    await_condition(lambda: confirmed() >= before + 200, timeout_seconds=_PATIENCE_SECONDS, what=what)


def await_in_sync(cluster: KafkaCluster, topic: str) -> None:
    """Wait until every broker knows of three replicas in sync of each partition."""

    def whole() -> bool:
        for address in cluster.bootstrap_servers.split(","):
            metadata = metadata_from(address, {})
            if metadata is None:
                return False
            partitions = metadata.topics[topic].partitions.values()
            if any(len(partition.isrs) < len(cluster.broker_ids) for partition in partitions):
                return False
        return True

    await_condition(whole, timeout_seconds=_PATIENCE_SECONDS, what="the replicas to be in sync")


def ledger_of(cluster: KafkaCluster, topic: str, accepted: dict[str, list[str]]) -> Ledger:
    # One broker is enough to read from, once it knows the leaders.
    everything = sum(map(len, accepted.values()))
    broker = brokers.real(cluster.bootstrap_servers, "jvm")
    return Ledger.of_messages(accepted, broker.messages(topic, everything, timeout_seconds=_PATIENCE_SECONDS))


def test_what_the_producer_confirmed_is_there_exactly_once_however_often_the_leader_is_killed(
    three_brokers: KafkaCluster, scale: Scale, note_fault: NoteFault
) -> None:
    topic, kills = "confirmed", scale.of(10, 1)
    three_brokers.create_topic(topic, brokers.PARTITIONS)
    producer = WorkflowEventProducer(three_brokers.bootstrap_servers, topic=topic)
    assert producer.client_config["acks"] == "all"
    assert producer.client_config["enable.idempotence"]
    futures: dict[str, Future[DeliveryReport]] = {}
    confirmed: set[str] = set()

    def send(event: WorkflowEvent) -> None:
        futures[event.event_id] = future = producer.send(event)
        future.add_done_callback(note)

    def note(future: Future[DeliveryReport]) -> None:
        if (report := future.result()).delivered:
            confirmed.add(report.event_id)

    load = Load(send)
    with load.running():
        kill_leaders(three_brokers, topic, kills, lambda: len(confirmed))
    producer.close()
    reports = {event_id: future.result(_PATIENCE_SECONDS) for event_id, future in futures.items()}

    accepted = {
        key: [event_id for event_id in of_key if reports[event_id].delivered]
        for key, of_key in load.emitted.items()
    }
    ledger = ledger_of(three_brokers, topic, accepted)
    refused = [str(report.error) for report in reports.values() if not report.delivered]
    note_fault(
        "leader of a partition killed -9 under a producer's load",
        kills,
        ledger,
        f"{len(refused)} not confirmed, {ledger.unknown} of them arrived",
    )
    assert (ledger.lost, ledger.repeated, ledger.disordered) == (0, 0, 0)
    assert not refused, "two replicas of three are left, so that the producer can wait the election out"


class Watched(ProducerDestination):
    """Counts what the relay was told to try again, and why."""

    def __init__(self, producer: WorkflowEventProducer) -> None:
        super().__init__(producer)
        self.confirmed = 0
        self.failures: list[str] = []

    def deliver(
        self, events: Sequence[WorkflowEvent], topic: str | None, timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        errors = super().deliver(events, topic, timeout)
        self.confirmed += errors.count(None)
        self.failures += [str(error) for error in errors if error is not None]
        return errors


def test_what_the_outbox_accepted_arrives_in_order_however_often_the_leader_is_killed(
    three_brokers: KafkaCluster, tmp_path: Path, scale: Scale, note_fault: NoteFault
) -> None:
    topic, kills = "relayed", scale.of(10, 1)
    three_brokers.create_topic(topic, brokers.PARTITIONS)
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    opened: list[Watched] = []

    def open_destination(_conn_id: str | None) -> Watched:
        producer = WorkflowEventProducer(
            three_brokers.bootstrap_servers, topic=topic, connect=False, config=RELAY_OPTIONS
        )
        opened.append(Watched(producer))
        return opened[-1]

    background = BackgroundRelay(outbox, Relay(outbox, open_destination))
    background.start()
    refused: list[str] = []

    def accept(event: WorkflowEvent) -> None:
        if not background.accept(event, DEFAULT_ROUTE, environment_is_default=True):
            refused.append(event.event_id)

    load = Load(accept)
    with load.running():
        kill_leaders(three_brokers, topic, kills, lambda: sum(one.confirmed for one in opened))
    await_condition(
        lambda: outbox.totals().pending == 0, timeout_seconds=_PATIENCE_SECONDS, what="an empty outbox"
    )
    assert background.stop(_PATIENCE_SECONDS)
    assert not refused
    parked = outbox.totals().parked
    outbox.database.close()

    ledger = ledger_of(three_brokers, topic, load.emitted)
    retried = [failure for one in opened for failure in one.failures]
    note_fault(
        "leader of a partition killed -9 under a relay's load",
        kills,
        ledger,
        f"{len(retried)} attempted again, {len(opened)} producer(s)",
    )
    assert (ledger.lost, ledger.disordered, parked) == (0, 0, 0)
    assert ledger.repeated <= len(retried), "the broker drops what one producer repeats"
