"""Two relays on one outbox share the work, and each survives the other's death, silence and return."""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import sqlalchemy as sa
from confluent_kafka import Message

from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from tests.broker import Broker, event_of
from tests.databases import PostgreSQL
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.programs import PATIENCE_SECONDS, Program
from tests.waiting import await_condition

pytestmark = pytest.mark.timeout(900)

_OF_EACH_KEY = 10
#: Longer than the whole test: while both live, neither may take what is the other's.
_LONG_LEASE_SECONDS = 300.0
_SHORT_LEASE_SECONDS = 4.0


class RelayProgram(Program):
    """A relay in a process of its own, as on another host."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("shared_relay", *arguments)

    def await_ready(self) -> None:
        self.expect("ready")

    def begin(self) -> None:
        self.tell("begin")

    def halt(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        self.await_halted()

    def await_halted(self) -> None:
        def halted() -> bool:
            return os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG) is not None

        await_condition(halted, timeout_seconds=PATIENCE_SECONDS, what="the relay to halt")

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def leased(self, outbox: Outbox) -> set[str]:
        """The ids of the events that it holds, by the outbox's own account."""
        statement = sa.text("SELECT id FROM workflow_events_outbox WHERE lease LIKE :owner")
        with outbox.database.connect() as connection:
            return set(connection.execute(statement, {"owner": f"%:{self.process.pid}:%"}).scalars())


StartRelay = Callable[..., RelayProgram]


@pytest.fixture
def start_relay(best_broker: Broker, topic: str) -> Iterator[StartRelay]:
    """``start_relay(url, name, lease_seconds, batch, halt_at=None)``."""
    started: list[RelayProgram] = []

    def start(
        url: str, name: str, lease_seconds: float, batch: int, halt_at: str | None = None
    ) -> RelayProgram:
        arguments = (url, best_broker.bootstrap_servers, topic, name, str(lease_seconds), str(batch))
        started.append(RelayProgram(*arguments, *([halt_at] if halt_at else [])))
        return started[-1]

    yield start
    for relay in started:
        relay.clean_up()


class Backlog:
    """An outbox, and what was put into it, in order, by ordering key."""

    def __init__(self, url: str) -> None:
        self.outbox = Outbox(OutboxDatabase(url))
        self.accepted: dict[str, list[str]] = defaultdict(list)

    def fill(self, keys: int, of_each: int = _OF_EACH_KEY) -> None:
        """Append events of some runs in turn, after those they have already."""
        for _ in range(of_each):
            for key in range(keys):
                event = make_event(workflow_run_id=f"run{key:05}")
                self.outbox.append(event, environment_is_default=True)
                self.accepted[event.ordering_key].append(event.event_id)

    def await_empty(self) -> None:
        await_condition(
            lambda: self.outbox.totals().pending == 0,
            timeout_seconds=PATIENCE_SECONDS,
            what="the outbox to be empty",
        )

    def arrived(self, broker: Broker, topic: str) -> list[Message]:
        self.outbox.database.close()
        everything = sum(map(len, self.accepted.values()))
        return broker.messages(topic, everything, timeout_seconds=PATIENCE_SECONDS)


def halt_midway(relay: RelayProgram, backlog: Backlog) -> None:
    """Halt a relay that has settled some of its work and holds leases of more."""
    seen: set[str] = set()

    def halted_midway() -> bool:
        relay.halt()  # so that it goes on holding what it is seen to hold
        held = relay.leased(backlog.outbox)
        if held and seen - held:
            return True
        seen.update(held)
        relay.resume()
        if not backlog.outbox.totals().pending:
            backlog.fill(100)
        return False

    await_condition(halted_midway, timeout_seconds=PATIENCE_SECONDS, what="a relay in the midst of its work")


def by_deliverer(messages: Sequence[Message]) -> dict[str, list[str]]:
    """The ids that each relay delivered."""
    found: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        event = event_of(message)
        found[str(event.metadata.environment)].append(event.event_id)
    return found


def repeats_of(messages: Sequence[Message]) -> set[str]:
    """The ids that arrived more than once."""
    times = Counter(event_of(message).event_id for message in messages)
    return {event_id for event_id, count in times.items() if count > 1}


def stale_repeats(accepted: Mapping[str, Sequence[str]], messages: Sequence[Message]) -> int:
    """How many deliveries came again after a later event of their run, which only their id gives away."""
    places = {event_id: place for of_key in accepted.values() for place, event_id in enumerate(of_key)}
    newest: dict[str, int] = defaultdict(lambda: -1)
    stale = 0
    for message in messages:
        event = event_of(message)
        place = places[event.event_id]
        stale += place < newest[event.ordering_key]
        newest[event.ordering_key] = max(place, newest[event.ordering_key])
    return stale


def kind_of(url: str) -> str:
    return "PostgreSQL" if url.startswith("postgresql") else "SQLite"


def test_two_relays_share_a_backlog_and_repeat_nothing(
    url: str, topic: str, best_broker: Broker, start_relay: StartRelay, scale: Scale, note_fault: NoteFault
) -> None:
    backlog = Backlog(url)
    relays = [start_relay(url, name, _LONG_LEASE_SECONDS, scale.of(250, 25)) for name in ("one", "two")]
    backlog.fill(scale.of(2_000, 100))
    for relay in relays:
        relay.await_ready()
    for relay in relays:
        relay.begin()
    backlog.await_empty()
    for relay in relays:
        relay.end()

    messages = backlog.arrived(best_broker, topic)
    ledger = Ledger.of_messages(backlog.accepted, messages)
    one, two = (len(by_deliverer(messages)[name]) for name in ("one", "two"))
    note_fault(f"two relays at once on {kind_of(url)}", 1, ledger, f"{one:,} by one, {two:,} by the other")
    assert (ledger.lost, ledger.repeated, ledger.disordered, ledger.unknown) == (0, 0, 0, 0)
    assert one > 0
    assert two > 0


def test_what_a_killed_relay_had_leased_is_delivered_by_the_other(
    url: str, topic: str, best_broker: Broker, start_relay: StartRelay, scale: Scale, note_fault: NoteFault
) -> None:
    backlog, kills, batch = Backlog(url), scale.of(5, 1), scale.of(250, 10)
    leased: set[str] = set()
    for _ in range(kills):
        victim, survivor = (
            start_relay(url, name, _SHORT_LEASE_SECONDS, batch) for name in ("victim", "survivor")
        )
        backlog.fill(scale.of(400, 100))
        for relay in (victim, survivor):
            relay.await_ready()
        for relay in (victim, survivor):
            relay.begin()
        halt_midway(victim, backlog)
        victim.kill()
        held = victim.leased(backlog.outbox)
        assert held
        leased |= held
        backlog.await_empty()
        survivor.end()
    parked = backlog.outbox.totals().parked

    messages = backlog.arrived(best_broker, topic)
    ledger = Ledger.of_messages(backlog.accepted, messages)
    shares = by_deliverer(messages)
    note_fault(
        f"one of two relays killed -9 while it holds leases, {kind_of(url)}",
        kills,
        ledger,
        f"{len(leased)} leased at its death, {len(shares['victim']):,} delivered by it before",
    )
    assert (ledger.lost, ledger.disordered, parked) == (0, 0, 0)
    assert leased <= set(shares["survivor"])
    assert repeats_of(messages) <= leased, "only what it had not settled may come twice"


def test_relays_that_come_back_after_their_leases_disturb_nothing(
    postgresql: PostgreSQL,
    topic: str,
    best_broker: Broker,
    start_relay: StartRelay,
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    url, rounds = postgresql.new_database(), scale.of(5, 1)
    backlog, keys, steps = Backlog(url), 60, ("claimed", "produced", "reported")
    leased: set[str] = set()
    for _ in range(rounds):
        # Each takes twenty runs' first events, and leaves the rest to the next.
        late = [start_relay(url, step, _SHORT_LEASE_SECONDS, 20, step) for step in steps]
        other = start_relay(url, "other", _SHORT_LEASE_SECONDS, 50)
        backlog.fill(keys, 5)
        for relay in (*late, other):
            relay.await_ready()
        for relay in late:
            relay.begin()
            relay.await_halted()
            assert relay.leased(backlog.outbox)
            leased |= relay.leased(backlog.outbox)
        other.begin()
        backlog.await_empty()
        backlog.fill(keys, 5)
        backlog.await_empty()
        for relay in late:
            relay.resume()
        backlog.fill(keys, 5)
        backlog.await_empty()
        for relay in (*late, other):
            relay.end()
    assert backlog.outbox.totals()[:2] == (0, 0)

    messages = backlog.arrived(best_broker, topic)
    ledger = Ledger.of_messages(backlog.accepted, messages)
    shares, repeats = by_deliverer(messages), repeats_of(messages)
    again = {step: len(repeats & set(shares[step])) for step in steps}
    note_fault(
        "relay cut off (SIGSTOP) for longer than its lease, PostgreSQL",
        rounds * len(steps),
        ledger,
        ", ".join(f"{count} again by those that had {step}" for step, count in again.items())
        + f"; {stale_repeats(backlog.accepted, messages)} of them after later events of their run",
    )
    assert (ledger.lost, ledger.disordered) == (0, 0)
    assert repeats <= leased
    assert not again["claimed"], "who stood still for so long sends nothing any more"


def test_a_relay_cut_off_inside_a_transaction_holds_nobody_up_for_long(
    postgresql: PostgreSQL,
    topic: str,
    best_broker: Broker,
    start_relay: StartRelay,
    scale: Scale,
    note_fault: NoteFault,
) -> None:
    steps = ("settling", "claiming")[: scale.of(2, 1)]
    url = postgresql.new_database()
    backlog = Backlog(url)
    for step in steps:
        late = start_relay(url, "late", _SHORT_LEASE_SECONDS, 20, step)
        other = start_relay(url, "other", _SHORT_LEASE_SECONDS, 50)
        backlog.fill(40, 5)
        late.await_ready()
        other.await_ready()
        late.begin()
        late.await_halted()
        other.begin()
        backlog.fill(40, 1)  # what settles holds a lock that every append needs
        backlog.await_empty()
        other.end()
        late.resume()
        backlog.fill(40, 1)
        backlog.await_empty()  # by the one that came back, whose transaction the server had ended
        late.end()

    messages = backlog.arrived(best_broker, topic)
    ledger = Ledger.of_messages(backlog.accepted, messages)
    note_fault("relay cut off (SIGSTOP) inside a transaction, PostgreSQL", len(steps), ledger)
    assert (ledger.lost, ledger.disordered) == (0, 0)
    assert ledger.repeated <= 20, "what was delivered when the relay was cut off while settling"
