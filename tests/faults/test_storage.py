"""An outbox that is full, locked, broken or unwritable: nothing raises, events go directly, and it heals."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from airflow_workflow_events import EmbeddedBroker, WorkflowEventProducer, relaying
from airflow_workflow_events import metrics as names
from airflow_workflow_events.callbacks import publish_on_success
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox import background as backgrounds
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE, Bounds, Route, WhenFull
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.settings import Settings
from tests import broker as brokers
from tests.airflow_metrics import metrics_go_to
from tests.broker import event_of
from tests.counting import Counting
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.programs import PATIENCE_SECONDS, Program
from tests.unit.airflow_side.conftest import Counters
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import dag_context, make_run
from tests.waiting import await_condition

_TOPIC = "workflow-events"
_DISK = "4m"  # room for all events of a test, and its log
_REFILL_SECONDS = 0.02
_LOOK = """
import sqlite3, sys
print(*sqlite3.connect(sys.argv[1]).execute("SELECT id FROM workflow_events_outbox"))
"""

Trouble = Callable[[Path], AbstractContextManager[None]]


def mount(*arguments: str) -> None:
    """Mount something, or have the test left out where that is not allowed."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    reason = f"mount {' '.join(arguments)}: {done.stderr.strip()}"
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"in CI nothing is left out, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the outbox is."""
    found = tmp_path / "outbox"
    found.mkdir()
    return found


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """The folder as a small disk of its own."""
    mount("-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder))
    yield folder
    # Lazily: whatever a failed test has left open must not keep it there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Somebody else takes all the room there is, and all that comes up."""
    filler, stop, full = folder / "filler", threading.Event(), threading.Event()

    def fill_up() -> None:
        with filler.open("wb", buffering=0) as file:
            while not stop.wait(_REFILL_SECONDS if full.is_set() else 0):
                size = 4_096
                while size:
                    try:
                        file.write(b"x" * size)
                    except OSError:
                        size //= 2
                full.set()

    filling = threading.Thread(target=fill_up)
    filling.start()
    full.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        stop.set()
        filling.join()
        filler.unlink()


@contextmanager
def read_only_disk(folder: Path) -> Iterator[None]:
    mount("-o", "remount,ro", str(folder))
    yield
    mount("-o", "remount,rw", str(folder))


@contextmanager
def corrupt_file(folder: Path) -> Iterator[None]:
    file = folder / "outbox.db"
    content = file.read_bytes()
    file.write_bytes(b"no database".ljust(len(content), b"!"))
    yield
    file.write_bytes(content)  # as from a backup


@contextmanager
def locked_by_another_process(folder: Path) -> Iterator[None]:
    with Program("locking", str(folder / "outbox.db")) as process:
        process.expect("locked")
        yield
        process.end()


@contextmanager
def schema_from_the_future(folder: Path) -> Iterator[None]:
    def change(statement: str) -> None:
        connection = sqlite3.connect(folder / "outbox.db")
        with connection:
            connection.execute(statement)
        connection.close()

    change("INSERT INTO workflow_events_outbox_schema VALUES (999)")
    yield
    change("DELETE FROM workflow_events_outbox_schema WHERE version = 999")


_TROUBLES: dict[str, Trouble] = {
    "disk full": full_disk,
    "disk read-only": read_only_disk,
    "file corrupt": corrupt_file,
    "file locked by another process": locked_by_another_process,
    "schema from the future": schema_from_the_future,
}


@pytest.fixture
def what(request: pytest.FixtureRequest) -> str:
    """A trouble by its name; those of a disk get one of their own."""
    name: str = request.param
    if name.startswith("disk"):
        request.getfixturevalue("disk")
    return name


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={_TOPIC: brokers.PARTITIONS}) as broker:
        yield broker


@pytest.fixture
def counts() -> Iterator[Counter[tuple[str, str]]]:
    """Airflow's counters of this package, by metric and who emitted."""
    backend = Counters()
    with metrics_go_to(lambda: backend):
        yield backend.counts


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The errors that the package has logged, whatever Airflow did to logging."""
    package = logging.getLogger("airflow_workflow_events")
    propagate, package.propagate = package.propagate, False
    package.addHandler(caplog.handler)
    yield lambda: [
        f"{record.name}: {record.getMessage()}"
        for record in caplog.records
        if record.levelname == "ERROR" and "librdkafka" not in record.name
    ]
    package.removeHandler(caplog.handler)
    package.propagate = propagate


class Accepting:
    """A relay's thread, and the events it was given."""

    def __init__(self, outbox: Outbox, broker: EmbeddedBroker) -> None:
        self.metrics = Counting()
        self.without_connection: set[str | None] = set()
        self._broker = broker
        relay = Relay(outbox, self._open_destination, metrics=self.metrics)
        self.background = BackgroundRelay(outbox, relay, metrics=self.metrics, poll_seconds=0.1)

    def accept(self, name: str) -> bool:
        """Have an event of its own run accepted."""
        event = make_event(workflow_run_id=name, event_id=name)
        return self.background.accept(event, DEFAULT_ROUTE, environment_is_default=False)

    def finish(self, outbox: Outbox) -> None:
        """Deliver everything, and end."""
        await_condition(
            lambda: outbox.totals().pending == 0, timeout_seconds=PATIENCE_SECONDS, what="an empty outbox"
        )
        assert self.background.stop(PATIENCE_SECONDS)

    def _open_destination(self, conn_id: str | None) -> ProducerDestination:
        if conn_id in self.without_connection:
            raise LookupError(f"the connection {conn_id} isn't defined")
        servers = self._broker.bootstrap_servers
        return ProducerDestination(WorkflowEventProducer(servers, connect=False, config=RELAY_OPTIONS))


Accept = Callable[..., Accepting]


@pytest.fixture
def accept_with(broker: EmbeddedBroker) -> Iterator[Accept]:
    """``accept_with(outbox, *without_connection)``; ended after the test."""
    made: list[Accepting] = []

    def make(outbox: Outbox, *without_connection: str) -> Accepting:
        made.append(Accepting(outbox, broker))
        made[-1].without_connection.update(without_connection)
        return made[-1]

    yield make
    for accepting in made:
        if accepting.background.running:
            accepting.background.stop(PATIENCE_SECONDS)


def outbox_at(folder: Path, **bounds: object) -> Outbox:
    return Outbox(OutboxDatabase(f"sqlite:///{folder}/outbox.db"), Bounds(**bounds))  # type: ignore[arg-type]


def fill(outbox: Outbox, count: int, route: Route = DEFAULT_ROUTE) -> dict[str, list[str]]:
    """Have events accepted by a process that ends then; return their ids by ordering key."""
    events = [
        make_event(workflow_run_id=f"before{number}", event_id=f"before{number}") for number in range(count)
    ]
    for event in events:
        outbox.append(event, route)
    outbox.database.close()
    return {event.ordering_key: [event.event_id] for event in events}


def arrived(broker: EmbeddedBroker, count: int) -> set[str]:
    """Ids on the topic, once there are so many messages."""
    return {event_of(message).event_id for message in brokers.embedded(broker).messages(_TOPIC, count)}


def keyed(names: list[str]) -> dict[str, list[str]]:
    """Those ids by ordering key, for events of a run each."""
    return {make_event(workflow_run_id=name).ordering_key: [name] for name in names}


def accept_again(accepting: Accepting) -> list[str]:
    """Have events accepted until the outbox takes one; return their names."""
    tried: list[str] = []

    def accepted() -> bool:
        tried.append(f"after{len(tried)}")
        return accepting.accept(tried[-1])

    await_condition(accepted, timeout_seconds=PATIENCE_SECONDS, what="the outbox to take events again")
    return tried


@pytest.mark.parametrize(
    ("what", "running"),
    [
        *((what, False) for what in _TROUBLES),
        # A disk in use cannot be made read-only; and a running process does not look at the schema again, nor
        # SQLite at a file whose pages it has.
        *((what, True) for what in ("disk full", "file locked by another process")),
    ],
    indirect=["what"],
)
def test_what_the_outbox_cannot_take_is_delivered_directly_until_it_can(
    what: str,
    running: bool,
    folder: Path,
    broker: EmbeddedBroker,
    accept_with: Accept,
    complaints: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    monkeypatch.setattr(backgrounds, "_SPARED_SECONDS", 0.5)  # in earnest longer than the test should take
    before = fill(outbox_at(folder), 5, Route("later"))
    outbox = outbox_at(folder)
    accepting = accept_with(outbox, "later")
    during = [f"during{number}" for number in range(scale.of(200, 20))]
    if running:
        accepting.background.start()
        assert accepting.accept("first")
        arrived(broker, 1)
        await_condition(lambda: outbox.relays(60), timeout_seconds=PATIENCE_SECONDS, what="its sign of life")
    first = {"first"} if running else set()
    with _TROUBLES[what](folder):
        if not running:
            accepting.background.start()
        accepted = {name for name in during if accepting.accept(name)}
        if not running:
            assert accepted == set()
            # While a relay runs, the outbox may take one of them after all as soon as a page is free.
            assert arrived(broker, len(during)) >= {*during}
        await_condition(
            lambda: accepting.metrics.counts[names.OUTBOX_ERRORS] >= 3,
            timeout_seconds=PATIENCE_SECONDS,
            what="each failure to be counted",
        )
        complained = complaints()
    after = accept_again(accepting)
    accepting.without_connection.clear()
    accepting.finish(outbox)
    parked = outbox.totals().parked
    outbox.database.close()

    everything = before | keyed([*first, *during, *after])
    messages = brokers.embedded(broker).messages(_TOPIC, len(everything))
    ledger = Ledger.of_messages(everything, messages)
    counts = accepting.metrics.counts
    note_fault(
        f"outbox: {what}, {'while a relay runs' if running else 'from the start'}",
        1,
        ledger,
        f"{len(during)} delivered directly, {counts[names.OUTBOX_ERRORS]} failures counted, "
        f"{len(complained)} logged",
    )
    assert (ledger.lost, ledger.disordered, parked, counts[names.FAILED]) == (0, 0, 0, 0)
    # A full disk shows in several ways; each is said once.
    assert len(complained) == len(set(complained)) in {1, 2, 3}, complained


@pytest.fixture
def callbacks_outbox(folder: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The outbox and the connection of the callbacks of this process."""
    monkeypatch.setenv("AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL", f"sqlite:///{folder}/outbox.db")
    Connections(monkeypatch).add(extra={"bootstrap.servers": broker.bootstrap_servers, "topic": _TOPIC})
    monkeypatch.setattr(relaying, "_spared_until", {})
    relaying._outbox.cache_clear()
    yield
    outbox = relaying.outbox_of(Settings.load())
    assert outbox is not None
    outbox.database.close()


def call_back(name: str) -> None:
    """Do what Airflow does at the end of a run of that name."""
    publish_on_success(dag_context(run=make_run(run_id=name)))


def runs_arrived(broker: EmbeddedBroker, count: int) -> set[str]:
    """The runs of the events on the topic, once there are so many messages."""
    return {event_of(message).workflow_run_id for message in brokers.embedded(broker).messages(_TOPIC, count)}


@pytest.mark.parametrize("what", _TROUBLES, indirect=True)
@pytest.mark.usefixtures("callbacks_outbox")
def test_a_callback_publishes_directly_what_the_outbox_cannot_take_and_uses_it_again_when_it_can(
    what: str,
    folder: Path,
    broker: EmbeddedBroker,
    accept_with: Accept,
    counts: Counter[tuple[str, str]],
    complaints: Callable[[], list[str]],
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    before = fill(outbox_at(folder), 5)
    during = {f"during{number}" for number in range(scale.of(50, 3))}
    with _TROUBLES[what](folder):
        for name in sorted(during):
            call_back(name)
        assert runs_arrived(broker, len(during)) == during
    assert counts == {
        (names.OUTBOX_ERRORS, "callback"): len(during),
        (names.PUBLISHED, "callback"): len(during),
    }
    complained = complaints()
    assert len(complained) == len(during), "a callback's process ends, so each says what became of its event"
    assert all("was not accepted by the outbox" in complaint for complaint in complained)

    call_back("after")
    assert counts[names.ACCEPTED, "callback"] == 1
    outbox = outbox_at(folder)
    accepting = accept_with(outbox)
    accepting.background.start()
    found = runs_arrived(broker, len(during) + len(before) + 1)
    assert found == during | {f"before{number}" for number in range(5)} | {"after"}
    assert accepting.background.stop(PATIENCE_SECONDS)
    outbox.database.close()
    note_fault(f"outbox: {what}, callbacks", len(during), None, "each delivered directly, counted and logged")


def test_what_a_full_outbox_refuses_is_delivered_directly_and_counted_as_such(
    folder: Path,
    broker: EmbeddedBroker,
    accept_with: Accept,
    complaints: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    monkeypatch.setattr(backgrounds, "_SPARED_SECONDS", 0.5)
    bound = scale.of(1_000, 20)
    before = fill(outbox_at(folder), bound, Route("later"))
    outbox = outbox_at(folder, max_rows=bound)
    accepting = accept_with(outbox, "later")
    accepting.background.start()
    during: list[str] = []

    def refused_again() -> bool:
        during.append(f"during{len(during)}")
        assert not accepting.accept(during[-1])
        return sum(accepting.metrics.counts[name] for name in (names.DROPPED, names.OUTBOX_ERRORS)) >= 4

    await_condition(refused_again, timeout_seconds=PATIENCE_SECONDS, what="the outbox to be asked again")
    assert arrived(broker, len(during)) == set(during)
    complained, counts = complaints(), Counter(accepting.metrics.counts)
    assert outbox.totals().pending == bound

    accepting.without_connection.clear()
    after = accept_again(accepting)
    accepting.finish(outbox)
    outbox.database.close()
    everything = before | keyed([*during, *after])
    ledger = Ledger.of_messages(everything, brokers.embedded(broker).messages(_TOPIC, len(everything)))
    note_fault(
        "outbox full, told to refuse",
        len(during),
        ledger,
        f"{counts[names.DROPPED]} refusals counted, {len(complained)} logged",
    )
    assert (ledger.lost, ledger.disordered, counts[names.FAILED]) == (0, 0, 0)
    assert counts[names.DROPPED] >= 4, "what the bound refuses is counted as dropped"
    assert len(complained) == 1, complained


def test_a_full_outbox_that_is_told_to_drop_what_is_oldest_takes_every_event_and_says_what_it_lost(
    folder: Path,
    broker: EmbeddedBroker,
    accept_with: Accept,
    complaints: Callable[[], list[str]],
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    bound, dropped_at_once = scale.of(1_000, 150), 100
    before = fill(outbox_at(folder), bound, Route("later"))
    outbox = outbox_at(folder, max_rows=bound, when_full="drop_oldest")
    accepting = accept_with(outbox, "later")
    accepting.background.start()
    during = [f"during{number}" for number in range(scale.of(1_000, 20))]
    assert all(accepting.accept(name) for name in during)
    assert arrived(broker, len(during)) == set(during)

    accepting.without_connection.clear()
    accepting.finish(outbox)
    outbox.database.close()
    everything, counts = before | keyed(during), accepting.metrics.counts
    messages = brokers.embedded(broker).messages(_TOPIC, len(everything) - counts[names.DROPPED])
    ledger = Ledger.of_messages(everything, messages)
    note_fault(
        "outbox full, told to drop the oldest",
        len(during),
        ledger,
        f"{counts[names.DROPPED]} counted as dropped",
    )
    assert counts[names.DROPPED] >= dropped_at_once
    assert (ledger.lost, ledger.disordered) == (counts[names.DROPPED], 0)
    oldest = [event_id for [event_id] in before.values()][: counts[names.DROPPED]]
    assert not {event_of(message).event_id for message in messages} & set(oldest), "others were dropped"
    assert complaints(), "events that were accepted are gone, and nobody is told"


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
@pytest.mark.usefixtures("callbacks_outbox")
def test_a_callbacks_event_arrives_from_a_full_outbox_too(
    when_full: WhenFull,
    folder: Path,
    broker: EmbeddedBroker,
    counts: Counter[tuple[str, str]],
    complaints: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    note_fault: NoteFault,
) -> None:
    monkeypatch.setenv("AIRFLOW__WORKFLOW_EVENTS__OUTBOX_MAX_ROWS", "5")
    monkeypatch.setenv("AIRFLOW__WORKFLOW_EVENTS__OUTBOX_WHEN_FULL", when_full)
    fill(outbox_at(folder), 5, Route("later"))
    call_back("during")
    assert runs_arrived(broker, 1) == {"during"}
    assert counts[names.PUBLISHED, "callback"] == 1
    assert counts[names.DROPPED, "callback"] == (1 if when_full == "refuse" else 5)
    assert counts[names.ACCEPTED, "callback"] == (0 if when_full == "refuse" else 1)
    assert len(complaints()) == 1
    note_fault(f"outbox full, told to {when_full.replace('_', ' ')}, callback", 1)


# SQLite removes its log with what it takes for the last connection. Whoever went on writing to a removed one
# would have events accepted that nobody else ever sees.


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(program, *arguments)``; ended after the test."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Program(*arguments))


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "outbox.db"


def ids_in(file: Path) -> set[str]:
    outbox = Outbox(OutboxDatabase(f"sqlite:///{file}"))
    found = {entry.event_id for entry in outbox.claim(DEFAULT_ROUTE, "test", lease_seconds=1, count=100)}
    outbox.database.close()
    return found


def use_and_close(file: Path, event_id: str) -> None:
    """Do what any short-lived process does."""
    outbox = Outbox(OutboxDatabase(f"sqlite:///{file}"))
    outbox.append(make_event(event_id=event_id))
    outbox.database.close()


def test_what_is_accepted_after_a_lock_by_another_process_is_there_for_others(
    file: Path, start: Start
) -> None:
    use_and_close(file, "before")
    locking = start("locking", str(file))
    locking.expect("locked")
    process = start("appending", f"sqlite:///{file}", "alone")
    pid = int(process.answer())
    assert [process.ask(f"during{number}") for number in range(3)] == ["refused"] * 3
    locking.end()
    await_condition(
        lambda: process.ask("after") == "accepted", timeout_seconds=PATIENCE_SECONDS, what="the lock's end"
    )
    process.kill(pid)
    assert ids_in(file) == {"before", "after"}


def test_what_a_child_accepts_when_its_parent_has_ended_is_there_for_others(file: Path, start: Start) -> None:
    process = start("appending", f"sqlite:///{file}", "orphaned")
    pid = int(process.answer())
    assert process.ask("child1") == "accepted"
    use_and_close(file, "another")
    assert process.ask("child2") == "accepted"
    process.kill(pid)
    assert ids_in(file) == {"parent", "child1", "another", "child2"}


def test_a_second_outbox_in_a_process_does_not_take_the_locks_of_the_first(file: Path, start: Start) -> None:
    first, second = (Outbox(OutboxDatabase(f"sqlite:///{file}")) for _ in range(2))
    first.append(make_event(event_id="first"))
    second.append(make_event(event_id="second"))
    process = start("appending", f"sqlite:///{file}", "alone")
    process.answer()
    assert process.ask("another") == "accepted"
    process.end()
    first.append(make_event(event_id="last"))
    look = subprocess.run(
        [
            sys.executable,
            "-c",
            _LOOK,
            str(file),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    for outbox in (first, second):
        outbox.database.close()
    assert "last" in look.stdout
