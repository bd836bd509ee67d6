"""A watcher's position is kept in Kafka: behind what was not stored, and never ahead of it."""

# ruff: noqa: TID253 - watchers run on an event loop

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest

from airflow_workflow_events import EmbeddedBroker, watching
from airflow_workflow_events.errors import KafkaTimeoutError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka import group_offsets
from airflow_workflow_events.kafka import hub as hub_module
from airflow_workflow_events.kafka.client_log import OncePerMinute
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.watching import PositionKeeper, Watcher, WatcherStream
from tests.airflow_e2e.watchers import position_of
from tests.broker import PARTITIONS, Broker, embedded
from tests.contract.consuming import number_of, numbers, publish
from tests.unit.airflow_side.connections import DEFAULT, Connections
from tests.unit.kafka.scripted import Clock
from tests.waiting import await_condition

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome
else:
    shared_stream = pytest.importorskip(
        "airflow.triggers.shared_stream", reason="before Airflow 3.3 a watcher is not told what was stored"
    )
    AdvanceItem, AdvanceOutcome = shared_stream.AdvanceItem, shared_stream.AdvanceOutcome

pytestmark = pytest.mark.usefixtures("fresh_hubs")

_SECONDS = 20
_STORED = AdvanceOutcome(acked=1, failed=0, rejected=0)
_REJECTED = AdvanceOutcome(acked=0, failed=0, rejected=1)
_FAILED = AdvanceOutcome(acked=0, failed=1, rejected=0)
_UNSEEN = AdvanceOutcome(acked=0, failed=0, rejected=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_PROGRESS_SECONDS", 0.1)
    monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0.05)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of watchers, which a test lets pass."""
    made = Clock()
    monkeypatch.setattr(watching, "monotonic", made)
    return made


@pytest.fixture
def group_id() -> str:
    """A group that nobody has used."""
    return f"watcher-{uuid.uuid4()}"


class Watching:
    """A watcher whose events are collected in the background."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.received: list[ReceivedEvent] = []
        self.rounds = 0

    async def collect(self) -> None:
        advance = self.watcher._advance

        async def counted(positions: Mapping[tuple[str, int], int]) -> None:
            await advance(positions)
            self.rounds += 1

        self.watcher._advance = counted  # type: ignore[method-assign]
        async for received in self.watcher.events():
            self.received.append(received)

    async def take(self, count: int) -> list[ReceivedEvent]:
        await until(lambda: len(self.received) >= count, f"{count} events")
        return self.received[:count]

    async def rounds_more(self, count: int = 2) -> None:
        """Wait until it has been told so many times how far it was served, and has committed."""
        rounds = self.rounds + count
        await until(lambda: self.rounds >= rounds, "progress")

    async def settle(self, received: ReceivedEvent) -> None:
        await self.watcher.settle((received.topic, received.partition), received.offset)


async def until(condition: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(await_condition, condition, timeout_seconds=_SECONDS, what=what)


@asynccontextmanager
async def watching_for(
    group_id: str, workflow_id: str | None = None, start: StartFrom = StartFrom.EARLIEST
) -> AsyncIterator[Watching]:
    """A watcher at work."""
    watcher = Watcher(DEFAULT, None, EventFilter(workflow_id=workflow_id), start, group_id)
    async with watcher:
        found = Watching(watcher)
        task = asyncio.ensure_future(found.collect())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.wait([task])


class Position:
    """What a watcher has committed."""

    def __init__(self, group_id: str, broker: Broker, topic: str) -> None:
        self._where = (group_id, broker.bootstrap_servers, topic)

    @property
    def now(self) -> dict[int, int]:
        return position_of(*self._where)

    @property
    def sum(self) -> int:
        return sum(self.now.values())


@pytest.fixture
def position(group_id: str, embedded_broker: Broker, event_topic: str, connection: str) -> Position:
    """The watcher's position on the embedded broker."""
    return Position(group_id, embedded_broker, event_topic)


def item(received: ReceivedEvent, outcome: AdvanceOutcome) -> AdvanceItem:
    """What Airflow says became of an event."""
    return AdvanceItem((received.topic, received.partition, received.offset), outcome)


async def test_there_is_a_position_before_the_first_event_goes_out(
    position: Position,
    group_id: str,
    embedded_broker: Broker,
    event_topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    commit = PositionKeeper.commit

    async def commit_at_the_third_attempt(
        self: PositionKeeper, group: str, positions: Mapping[tuple[str, int], int]
    ) -> None:
        happened.append("commit")
        if len(happened) < 3:
            raise KafkaTimeoutError("no answer")
        await commit(self, group, positions)

    monkeypatch.setattr(PositionKeeper, "commit", commit_at_the_third_attempt)
    publish(embedded_broker, event_topic, [0])
    watcher = Watcher(DEFAULT, None, EventFilter(), StartFrom.EARLIEST, group_id)
    async with watcher:
        await anext(watcher.events())
        happened.append("event")
        assert await asyncio.to_thread(lambda: position.now) == dict.fromkeys(range(PARTITIONS), 0)

    assert happened[:4] == ["commit", "commit", "commit", "event"]


async def test_what_is_outstanding_holds_back_the_position_of_its_partition_alone(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, range(30), workflow_id="other")
    publish(embedded_broker, event_topic, [30], workflow_id="orders")
    publish(embedded_broker, event_topic, range(31, 61), workflow_id="other")
    async with watching_for(group_id, "orders") as watcher:
        [received] = await watcher.take(1)
        await watcher.rounds_more()
        committed = await asyncio.to_thread(lambda: position.now)

        assert committed[received.partition] <= received.offset
        assert sum(committed.values()) - committed[received.partition] > 0
        await watcher.settle(received)
        await watcher.rounds_more()
        assert await asyncio.to_thread(lambda: position.sum) == 61


async def test_what_is_settled_is_committed_and_does_not_come_again(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, range(8), workflow_run_id="one")
    async with watching_for(group_id) as watcher:
        received = await watcher.take(8)
        await watcher.settle(received[4])

        assert await asyncio.to_thread(lambda: position.now[received[4].partition]) == 5
    async with watching_for(group_id) as watcher:
        assert [number_of(one.event) for one in await watcher.take(3)] == [5, 6, 7]


async def test_a_watcher_goes_on_where_it_left_off_wherever_it_was_to_begin(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, [0])
    async with watching_for(group_id, start=StartFrom.LATEST) as watcher:
        await watcher.rounds_more(1)
    publish(embedded_broker, event_topic, range(1, 4))

    async with watching_for(group_id, start=StartFrom.LATEST) as watcher:
        found = await watcher.take(3)

    assert numbers(one.event for one in found) == [1, 2, 3]


async def test_two_groups_have_two_positions(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, [0])
    for name in (group_id, f"{group_id}-2"):
        async with watching_for(name) as watcher:
            [received] = await watcher.take(1)
            await watcher.settle(received)


async def test_an_event_that_was_not_stored_is_an_error_and_the_next_start_begins_with_it(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, range(4), workflow_run_id="one")
    async with watching_for(group_id) as watcher:
        first, second, third, _ = await watcher.take(4)
        stream = WatcherStream(watcher.watcher)
        with pytest.raises(RuntimeError, match=rf"\[{third.partition}\]@2 was not stored in time"):
            await stream.advance([item(first, _STORED), item(second, _REJECTED), item(third, _FAILED)])

    async with watching_for(group_id) as watcher:
        assert [number_of(one.event) for one in await watcher.take(2)] == [2, 3]


@pytest.mark.parametrize("outcome", [_FAILED, _UNSEEN])
async def test_an_event_that_failed_or_nobody_took_commits_nothing(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str, outcome: AdvanceOutcome
) -> None:
    publish(embedded_broker, event_topic, range(2), workflow_run_id="one")
    async with watching_for(group_id) as watcher:
        first, second = await watcher.take(2)
        with pytest.raises(RuntimeError, match="@0 was not stored in time"):
            await WatcherStream(watcher.watcher).advance([item(first, outcome), item(second, _STORED)])
        await watcher.rounds_more()
        assert await asyncio.to_thread(lambda: position.sum) == 0


def test_events_of_a_partition_are_in_one_lane() -> None:
    stream = WatcherStream(Watcher(DEFAULT, None, EventFilter(), StartFrom.LATEST, "group"))

    assert stream.get_advance_lane(("events", 3, 7)) == ("events", 3)


async def test_what_was_handed_over_is_committed_half_a_minute_later(
    position: Position, group_id: str, embedded_broker: Broker, event_topic: str, clock: Clock
) -> None:
    publish(embedded_broker, event_topic, range(3), workflow_run_id="one")
    async with watching_for(group_id) as watcher:
        for received in await watcher.take(3):
            watcher.watcher.hand_over(received)
            clock.now += 1
        clock.now += 26.9  # the first was handed over 29.9 s ago
        await watcher.rounds_more()
        assert await asyncio.to_thread(lambda: position.sum) == 0
        clock.now += 1
        await watcher.rounds_more()
        assert await asyncio.to_thread(lambda: position.sum) == 1
        clock.now += 30
        await watcher.rounds_more()
        assert await asyncio.to_thread(lambda: position.sum) == 3


async def test_a_position_that_does_not_change_is_committed_again_every_hour(
    position: Position, group_id: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[int] = []
    commit = PositionKeeper.commit

    async def counted(self: PositionKeeper, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        commits.append(len(positions))
        await commit(self, group, positions)

    monkeypatch.setattr(PositionKeeper, "commit", counted)
    async with watching_for(group_id) as watcher:
        await watcher.rounds_more(3)
        assert commits == [PARTITIONS]
        clock.now += 3_599
        await watcher.rounds_more()
        assert commits == [PARTITIONS]
        clock.now += 2
        await watcher.rounds_more()

    assert commits == [PARTITIONS, PARTITIONS]


async def test_a_commit_that_fails_in_an_outage_is_made_up_for_after_it(
    own_broker: EmbeddedBroker, group_id: str, monkeypatch: pytest.MonkeyPatch, log_of: Callable[[str], str]
) -> None:
    position = Position(group_id, embedded(own_broker), "events")
    publish(embedded(own_broker), "events", range(2), workflow_run_id="one")
    async with watching_for(group_id) as watcher:
        first, second = await watcher.take(2)
        monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0.1)
        own_broker.take_down()
        with monkeypatch.context() as impatient:
            impatient.setattr(group_offsets, "_ANSWER_SECONDS", 0.5)
            await watcher.settle(first)
        assert f"the position of {group_id} was not committed" in log_of("watching")
        own_broker.bring_up()
        await until(lambda: sum(watcher.watcher._committed.values()) == 1, "the commit that was owed")
        await watcher.settle(second)
        await until(lambda: position.sum == 2, "the next commit")


async def test_an_outage_when_it_starts_is_sat_out(
    own_broker: EmbeddedBroker, group_id: str, monkeypatch: pytest.MonkeyPatch, log_of: Callable[[str], str]
) -> None:
    monkeypatch.setattr(group_offsets, "_ANSWER_SECONDS", 0.5)
    publish(embedded(own_broker), "events", [0])
    own_broker.take_down()

    async def bring_up() -> None:
        await until(lambda: "cannot be read, trying again" in log_of("watching"), "an attempt in vain")
        own_broker.bring_up()

    bringing = asyncio.ensure_future(bring_up())
    async with watching_for(group_id) as watcher:
        assert len(await watcher.take(1)) == 1
    await bringing


@pytest.mark.parametrize("is_first_looked_up_by", ["the position", "the stream"])
async def test_a_connection_that_is_made_later_is_found_without_a_restart(
    event_topic: str,
    embedded_broker: Broker,
    connections: Connections,
    group_id: str,
    monkeypatch: pytest.MonkeyPatch,
    log_of: Callable[[str], str],
    is_first_looked_up_by: str,
) -> None:
    publish(embedded_broker, event_topic, [0])
    monkeypatch.setattr(watching.log, "filters", [OncePerMinute()])  # what other tests told is forgotten
    monkeypatch.setattr(watching, "_FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(watching, "_LONGEST_PAUSE_SECONDS", 0.2)
    if is_first_looked_up_by == "the stream":
        monkeypatch.setattr(watching.PositionKeeper, "find", AsyncMock(return_value=None))

    async def make() -> None:
        await until(lambda: "cannot be used" in log_of("watching"), "an attempt in vain")
        connections.add(extra={"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": event_topic})

    making = asyncio.ensure_future(make())
    async with watching_for(group_id) as watcher:
        assert len(await watcher.take(1)) == 1
    await making
    told = [line for line in log_of("watching").splitlines() if "cannot be used" in line]
    assert len(told) == 1
    assert f"connection '{DEFAULT}'" in told[0]
    assert "create or correct it" in told[0]


def test_a_connection_is_looked_up_ever_more_rarely() -> None:
    assert list(islice(watching._pauses(), 6)) == [2, 4, 8, 16, 30, 30]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether commits are refused, in its only item."""
    commit, refuses = PositionKeeper.commit, [False]

    async def commit_or_refuse(
        self: PositionKeeper, group: str, positions: Mapping[tuple[str, int], int]
    ) -> None:
        if refuses[0]:
            raise KafkaTimeoutError("no answer")
        await commit(self, group, positions)

    monkeypatch.setattr(PositionKeeper, "commit", commit_or_refuse)
    return refuses


async def _settle_in_vain(watcher: Watching, refusing: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the commit of an event refused, with neither an event nor word of progress to come after it."""
    [received] = await watcher.take(1)
    monkeypatch.setattr(hub_module, "_PROGRESS_SECONDS", 1e9)
    await watcher.rounds_more(1)
    refusing[0] = True
    await watcher.settle(received)
    refusing[0] = False


async def test_a_commit_that_failed_is_tried_again_without_another_event(
    position: Position,
    group_id: str,
    embedded_broker: Broker,
    event_topic: str,
    refusing: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(embedded_broker, event_topic, [0])
    async with watching_for(group_id) as watcher:
        monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0.1)
        await _settle_in_vain(watcher, refusing, monkeypatch)
        await until(lambda: position.sum == 1, "the commit that was owed")


async def test_leaving_commits_what_is_owed(
    position: Position,
    group_id: str,
    embedded_broker: Broker,
    event_topic: str,
    refusing: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(embedded_broker, event_topic, [0])
    async with watching_for(group_id) as watcher:
        monkeypatch.setattr(watching, "_PAUSE_SECONDS", 1e9)
        await _settle_in_vain(watcher, refusing, monkeypatch)
        assert await asyncio.to_thread(lambda: position.sum) == 0

    assert await asyncio.to_thread(lambda: position.sum) == 1


async def test_a_watcher_that_was_not_entered_has_no_events(connection: str) -> None:
    watcher = Watcher(DEFAULT, None, EventFilter(), StartFrom.LATEST, "group")

    with pytest.raises(AssertionError, match="not entered"):
        await anext(watcher.events())
