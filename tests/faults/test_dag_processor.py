"""Callbacks of many runs, served by one process of the DAG processor, while the brokers are slow.

Airflow kills a process that takes longer than ``dag_file_processor_timeout`` over a file, and forgets the
callbacks that it had left.
"""

from __future__ import annotations

import logging
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_workflow_events import EmbeddedBroker, WorkflowEventProducer
from airflow_workflow_events.events import DEFAULT_TOPIC
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests import broker as brokers
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.processes.airflow_parts import DAGS, AirflowParts, await_deliveries, ids_of, ledger_of
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(600)]

_INSTANCE = "called-back"
_ROUND_TRIP_MS = 5_000
# The relay's delivery that is under way when the brokers are quick again, and then its longest pause.
_RECOVERY_SECONDS = 120
# How each DAG's runs end, and what its callback publishes.
_DAGS = {
    "called_back": ("success", "workflow.completed"),
    "called_back_failing": ("failed", "workflow.failed"),
}
# What the DAG processor says before it kills, and what a callback says of an event that is nowhere.
_SIGNS_OF_LOSS = ("exceeding the timeout of", "was not published", "was not accepted")


@dataclass(frozen=True)
class CalledBack:
    """An Airflow whose callbacks have an outbox, and a broker that takes five seconds over each answer."""

    airflow: AirflowParts
    slow: EmbeddedBroker
    outbox: Outbox

    def start_relay(self) -> None:
        """Start ``airflow workflow-events relay``; returns once it is known to be at work."""
        self.airflow.start_part("relay", "airflow", "workflow-events", "relay")
        await_condition(lambda: self.outbox.relays(60), timeout_seconds=60, what="a relay at work")

    def said(self) -> str:
        """What the processes that served the DAG file have said so far."""
        files = sorted((self.airflow.logs / "dag_processor").glob("*/dags-folder/*.log"))
        return "".join(file.read_text(errors="replace") for file in files)


@pytest.fixture(scope="module")
def called_back(scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CalledBack]:
    home = tmp_path_factory.mktemp("called_back")
    with EmbeddedBroker() as slow:
        extra = {"bootstrap.servers": slow.bootstrap_servers}
        config = {
            "workflow_events.outbox_url": f"sqlite:///{home}/workflow_events/outbox.db",
            "workflow_events.source_instance": _INSTANCE,
            # In full it is the default: a process that waited in vain five times would be killed.
            "workflow_events.callback_timeout_seconds": str(scale.of(10, 4)),
        }
        connections = {"workflow_events_default": {"conn_type": "workflow_events", "extra": extra}}
        with AirflowParts(home, DAGS / "callbacks", connections=connections, config=config) as airflow:
            airflow.start()
            airflow.await_dags(set(_DAGS))
            outbox = airflow.outbox()
            yield CalledBack(airflow, slow, outbox)
            outbox.database.close()


@pytest.mark.parametrize("relay", ["none at first", "from the start"])
def test_slow_brokers_neither_get_the_callbacks_killed_nor_cost_an_event(
    called_back: CalledBack, scale: Scale, note_fault: NoteFault, relay: str
) -> None:
    if not scale.full and relay == "from the start":
        pytest.skip("without a relay, the callbacks have to face the brokers themselves")
    airflow, slow = called_back.airflow, called_back.slow
    if relay == "from the start":
        called_back.start_relay()
    slow.set_round_trip_ms(_ROUND_TRIP_MS)
    runs = {
        f"called__{uuid.uuid4()}": dag_id
        for dag_id, count in zip(_DAGS, (scale.of(8, 3), scale.of(4, 1)), strict=True)
        for _ in range(count)
    }
    # All callbacks wait for one process: the DAG processor is halted until the runs are over.
    airflow.signal_part("dag-processor", signal.SIGSTOP)
    try:
        for run_id, dag_id in runs.items():
            airflow.trigger(dag_id, run_id)
        for run_id, dag_id in runs.items():
            airflow.await_runs(dag_id, [run_id], _DAGS[dag_id][0])
    finally:
        airflow.signal_part("dag-processor", signal.SIGCONT)
    await_condition(
        lambda: all(run_id in called_back.said() for run_id in runs),
        timeout_seconds=180,
        what="a word of every callback",
    )
    waiting = called_back.outbox.totals().pending
    if relay == "none at first":
        assert waiting == len(runs)
    slow.set_round_trip_ms(0)
    if relay == "none at first":
        called_back.start_relay()
    deliveries = await_deliveries(brokers.embedded(slow), runs, 1, _RECOVERY_SECONDS)
    airflow.end_part("relay")
    expected = {
        f"{dag_id}/{run_id}": ids_of(airflow.run_of(dag_id, run_id), _INSTANCE, _DAGS[dag_id][1])
        for run_id, dag_id in runs.items()
    }
    ledger = ledger_of(expected, deliveries)
    note_fault(
        f"callbacks, brokers answer in {_ROUND_TRIP_MS / 1000:g} s, relay {relay}",
        len(runs),
        ledger,
        f"{waiting} in the outbox when all callbacks had ended",
    )
    assert (ledger.lost, ledger.unknown) == (0, 0)
    log = airflow.log("dag-processor") + called_back.said()
    assert [sign for sign in _SIGNS_OF_LOSS if sign in log] == []


def test_a_relay_gets_through_to_brokers_that_are_slow_from_the_first_contact(
    scale: Scale, note_fault: NoteFault, tmp_path: Path
) -> None:
    if not scale.full:
        pytest.skip("a first contact takes eight answers")
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    with EmbeddedBroker() as slow:
        slow.set_round_trip_ms(_ROUND_TRIP_MS)

        def open_destination(_conn_id: str | None) -> ProducerDestination:
            return ProducerDestination(
                WorkflowEventProducer(
                    bootstrap_servers=slow.bootstrap_servers,
                    connect=False,
                    failure_log_level=logging.DEBUG,
                    config=RELAY_OPTIONS,
                )
            )

        with BackgroundRelay(outbox, Relay(outbox, open_destination)) as relay:
            accepted = [make_event(workflow_run_id=f"run__{number}") for number in range(12)]
            for event in accepted:
                assert relay.accept(event)
            # Two attempts that are given up, and one of eight answers.
            await_condition(lambda: outbox.totals().pending == 0, timeout_seconds=200, what="an empty outbox")
            slow.set_round_trip_ms(0)
        messages = brokers.embedded(slow).messages(DEFAULT_TOPIC, len(accepted))
    outbox.database.close()
    ledger = Ledger.of_messages({event.ordering_key: [event.event_id] for event in accepted}, messages)
    note_fault(f"relay, brokers answer in {_ROUND_TRIP_MS / 1000:g} s", len(accepted), ledger)
    assert (ledger.lost, ledger.unknown) == (0, 0)
