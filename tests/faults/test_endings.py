"""However a process forks or ends with events under way, nothing that was accepted is lost."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.broker import Broker
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.waiting import await_condition

pytestmark = pytest.mark.timeout(600)

_PATIENCE_SECONDS = 120
#: Ways to end, and the exit code of each. After these no more Python runs:
_AT_ONCE = {"SIGTERM": -SIGTERM, "os._exit": 0}
#: and these run the exit handlers first, while the relay's thread goes on.
_IN_ORDER = {
    "SIGTERM and its handler": 0,
    "SIGINT": -SIGINT,
    "sys.exit": 0,
    "an error": 1,
    "the end of the program": 0,
}
_ENDINGS = [
    *((way, code, "left") for way, code in _AT_ONCE.items()),
    *((way, code, at_exit) for way, code in _IN_ORDER.items() for at_exit in ("stopped", "left")),
]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where programs note what was accepted."""
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))


def run(program: str, outbox: Outbox, broker: Broker, topic: str, *arguments: str) -> tuple[int, str]:
    """Run a program to its end; return its exit code and what it complained of."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"tests.faults.processes.{program}",
            outbox.database.name,
            broker.bootstrap_servers,
            topic,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def drain(outbox: Outbox, broker: Broker, topic: str) -> None:
    """Deliver what is left, by a relay that comes later."""
    producer = WorkflowEventProducer(broker.bootstrap_servers, topic=topic, config=RELAY_OPTIONS)
    relay = Relay(outbox, lambda _conn_id: ProducerDestination(producer))
    await_condition(
        lambda: relay.drain() is not None and outbox.totals().pending == 0,
        timeout_seconds=_PATIENCE_SECONDS,
        what="the outbox to be empty",
    )
    relay.close()
    outbox.database.close()


def compare(notes: Path, broker: Broker, topic: str) -> Ledger:
    accepted: dict[str, list[str]] = defaultdict(list)
    for file in notes.iterdir():
        for line in file.read_text().splitlines():
            key, event_id = line.rsplit(" ", 1)
            accepted[key].append(event_id)
    everything = sum(map(len, accepted.values()))
    assert everything
    messages = broker.messages(topic, everything, timeout_seconds=_PATIENCE_SECONDS)
    return Ledger.of_messages(accepted, messages)


@pytest.mark.parametrize(("way", "exit_code", "at_exit"), _ENDINGS)
def test_what_was_accepted_right_before_a_process_ends_is_delivered_later(
    way: str,
    exit_code: int,
    at_exit: str,
    outbox: Outbox,
    notes: Path,
    best_broker: Broker,
    topic: str,
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    times, waiting = scale.of(10, 1), []
    for number in range(times):
        # More of them each time, so that the relay is at different points of its work.
        arguments = (str(notes / str(number)), f"process{number}-", str(100 + 30 * number))
        state = "cold" if number % 2 else "warm"
        code, complaints = run("ending", outbox, best_broker, topic, *arguments, state, at_exit, way)
        assert code == exit_code, complaints
        assert "Fatal" not in complaints
        waiting.append(outbox.totals().pending)
    drain(outbox, best_broker, topic)

    ledger = compare(notes, best_broker, topic)
    note_fault(
        f"right after appending a process ends by {way}"
        + ("" if way in _AT_ONCE else f", its relay {at_exit} at exit"),
        times,
        ledger,
        f"{sum(waiting)} left to a later relay",
    )
    assert (ledger.lost, ledger.disordered, ledger.unknown) == (0, 0, 0)
    if way in _AT_ONCE:
        assert all(waiting), "it did not end in the midst of the relay's work"


def test_parent_and_children_of_forks_deliver_everything(
    outbox: Outbox, notes: Path, best_broker: Broker, topic: str, scale: Scale, note_fault: NoteFault
) -> None:
    children, of_each = scale.of(50, 4), 30
    code, complaints = run("forking", outbox, best_broker, topic, str(notes), str(children), str(of_each))
    assert code == 0, complaints
    drain(outbox, best_broker, topic)

    ledger = compare(notes, best_broker, topic)
    note_fault("fork while the producer and the relay's thread are busy", children, ledger)
    assert (ledger.lost, ledger.disordered, ledger.unknown) == (0, 0, 0)
