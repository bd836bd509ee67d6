"""The events of an asset's watcher, and its position among them, which outlives the triggerer.

A watcher's position is what a consumer group of its own has committed, although the group has no members: the
process's one consumer reads for all watchers. So watchers on several triggerers do not share out the events
between them, as members of a group would, and each goes on where it left off wherever it comes up again.
"""

# ruff: noqa: TID253 - this module is for asyncio

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from airflow_workflow_events import forks
from airflow_workflow_events.errors import KafkaError, WorkflowEventsError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.kafka.client_log import OncePerMinute
from airflow_workflow_events.kafka.group_offsets import GroupOffsets
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Positions, Progress
from airflow_workflow_events.supervisor_channel import share_supervisor_channel
from airflow_workflow_events.waiting import EventStream, absence_told

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem

try:
    from airflow.triggers.shared_stream import SharedStreamProducer
except ImportError:  # before Airflow 3.3, where nobody makes a WatcherStream
    SharedStreamProducer = object  # type: ignore[assignment,misc]

log: logging.Logger = logging.getLogger(__name__)
log.addFilter(OncePerMinute())  # an outage would be told every few seconds, by each watcher

_T = TypeVar("_T")

_PAUSE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 30.0
# Before Airflow 3.3 nobody says when an event was stored. The triggerer hands it over in a second or two.
_HAND_OVER_SECONDS = 30.0
# Brokers forget what an empty group has committed after a week (offsets.retention.minutes), counted from the
# commit: a position that does not change is committed again.
_REFRESH_SECONDS = 3_600.0


def _pauses() -> Iterator[float]:
    """Yield how long to wait before a connection is looked up again, in seconds: longer each time."""
    seconds = _FIRST_PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, _LONGEST_PAUSE_SECONDS)


class PositionKeeper:
    """The positions of all watchers of a connection.

    In a thread of its own, as asyncio has few of them for everybody in the process, and a broker that is away
    would hold them all up.

    Args:
        conn_id: Airflow's connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._offsets = GroupOffsets(lambda: WorkflowEventHook(conn_id).consumer_options())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="workflow-events-positions")

    async def find(self, group_id: str, topic: str | None) -> Positions | None:
        """Return what is committed, or ``None`` if nothing is.

        Raises:
            KafkaError: the brokers do not say.
            ConfigurationError: the connection cannot be used.
        """
        committed = await self._call(
            lambda: self._offsets.committed(group_id, topic or WorkflowEventHook(self._conn_id).topic)
        )
        # All of a topic that does not exist yet will be new.
        return {} if committed is None else committed or None

    async def commit(self, group_id: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Commit.

        Raises:
            KafkaError: the brokers refused, or did not answer.
            ConfigurationError: the connection cannot be used.
        """
        await self._call(lambda: self._offsets.commit(group_id, positions))

    async def forget(self, group_id: str) -> None:
        """Give up what is open for a group."""
        await self._call(lambda: self._offsets.forget(group_id))

    async def _call(self, function: Callable[[], _T]) -> _T:
        def call() -> _T:
            with absence_told(self._conn_id):
                return function()

        share_supervisor_channel()
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


_keepers: dict[str, PositionKeeper] = {}
forks.register(after_in_child=_keepers.clear)


class Watcher:
    """Events that are waited for, from where this watcher left off; to be entered.

    Args:
        conn_id: Airflow's connection.
        topic: the topic, or ``None`` for the connection's.
        awaited: which events.
        start: where to begin when nothing is committed yet.
        group_id: the consumer group in which the position is kept.
    """

    def __init__(
        self,
        conn_id: str,
        topic: str | None,
        awaited: EventFilter,
        start: StartFrom | dt.datetime,
        group_id: str,
    ) -> None:
        self._conn_id = conn_id
        self._topic = topic
        self._awaited = awaited
        self._start = start
        self._group_id = group_id
        self._keeper = _keepers.setdefault(conn_id, PositionKeeper(conn_id))
        self._stream: EventStream | None = None
        self._begun_at: StartFrom | dt.datetime | Positions = start
        self._outstanding: dict[tuple[str, int], deque[int]] = defaultdict(deque)
        self._handed_over: deque[tuple[float, ReceivedEvent]] = deque()
        self._uncommitted: dict[tuple[str, int], int] = {}
        self._committed: dict[tuple[str, int], int] = {}
        self._committing = asyncio.Lock()
        self._refresh_at = 0.0
        self._retrying: asyncio.Task[None] | None = None
        self._is_left = False

    async def __aenter__(self) -> Self:
        committed = await self._find_position()
        self._committed = dict(committed or {})
        await self._open_stream(self._start if committed is None else committed)
        return self

    async def _open_stream(self, start: StartFrom | dt.datetime | Positions) -> None:
        self._begun_at = start
        self._stream = EventStream(self._conn_id, self._topic, [self._awaited], start, wants_progress=True)
        await self._stream.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left = True
        if self._stream is not None:
            await self._stream.__aexit__(kind, error, trace)
        if self._retrying is not None:
            self._retrying.cancel()
        if self._uncommitted:
            await self._commit({})
        await self._keeper.forget(self._group_id)

    async def events(self) -> AsyncIterator[ReceivedEvent]:
        """Yield what is waited for; it is outstanding until it is settled, or a while after handing over.

        A connection that does not exist or cannot be used ends nothing: it is looked up again.
        """
        assert self._stream is not None, "not entered"  # noqa: S101 - a mistake in this package
        pauses = _pauses()
        while True:
            try:
                async for received in self._events_of(self._stream):
                    pauses = _pauses()
                    yield received
            except WorkflowEventsError as error:
                await self._stream.__aexit__(None, None, None)
                await self._wait_in_vain(error, next(pauses))
                await self._open_stream(self._reached() or self._begun_at)

    async def _events_of(self, stream: EventStream) -> AsyncIterator[ReceivedEvent]:
        async for delivery in stream:
            if isinstance(delivery, Progress):
                await self._advance(delivery.positions)
            else:
                self._outstanding[delivery.topic, delivery.partition].append(delivery.offset)
                yield delivery

    async def settle(self, place: tuple[str, int], offset: int) -> None:
        """Commit an event, and those before it in its partition: Airflow has stored them."""
        self._take_off(place, offset)
        await self._commit({place: offset + 1})

    def hand_over(self, received: ReceivedEvent) -> None:
        """Say that an event was given to a triggerer that does not say when it was stored."""
        self._handed_over.append((monotonic(), received))

    def _reached(self) -> Positions:
        """Return the next offset of each partition that has a position."""
        outstanding = {place: offsets[-1] + 1 for place, offsets in self._outstanding.items() if offsets}
        return {**self._committed, **self._uncommitted, **outstanding}

    async def _wait_in_vain(self, error: Exception, seconds: float) -> None:
        # Airflow starts a trigger that ends with an error again after two seconds, with its whole traceback
        # in the log each time.
        log.warning(
            "a watcher gets no events through connection %r, which cannot be used; create or correct it, and "
            "the watcher goes on without a restart: %s",
            self._conn_id,
            error,
        )
        await asyncio.sleep(seconds)

    async def _find_position(self) -> Positions | None:
        """Return what is committed; ``None`` if nothing is. Waits while it cannot be asked."""
        pauses = _pauses()
        while True:
            try:
                return await self._keeper.find(self._group_id, self._topic)
            except KafkaError as error:
                log.error("the position of %s cannot be read, trying again: %s", self._group_id, error)
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - Airflow's answer may be any error
                await self._wait_in_vain(error, next(pauses))

    async def _advance(self, positions: Positions) -> None:
        """Commit how far everything was handed over, but for what is outstanding."""
        while self._handed_over and self._handed_over[0][0] < monotonic() - _HAND_OVER_SECONDS:
            _, received = self._handed_over.popleft()
            place = (received.topic, received.partition)
            self._take_off(place, received.offset)
            self._uncommitted[place] = received.offset + 1
        done = {place: at for place, at in positions.items() if not self._outstanding[place]}
        await self._commit(done)
        while not done.keys() <= self._committed.keys():
            # With no position a restart would begin at another end: before there is one no event goes out.
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._commit({})

    def _take_off(self, place: tuple[str, int], offset: int) -> None:
        outstanding = self._outstanding[place]
        while outstanding and outstanding[0] <= offset:
            outstanding.popleft()

    async def _commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._uncommitted.update(positions)
        async with self._committing:  # or an older position could overtake
            wanted = {at: one for at, one in self._uncommitted.items() if self._committed.get(at) != one}
            if monotonic() >= self._refresh_at:
                wanted = {**self._committed, **wanted}
            if wanted:
                try:
                    await self._keeper.commit(self._group_id, wanted)
                except Exception as error:  # noqa: BLE001 - nor may Airflow's answer about the connection matter
                    # Until it is made up for, a restart would repeat events, and miss none.
                    log.warning("the position of %s was not committed: %s", self._group_id, error)
                    if not self._is_left and (self._retrying is None or self._retrying.done()):
                        self._retrying = asyncio.create_task(self._retry())
                    return
                self._committed.update(wanted)
                self._refresh_at = monotonic() + _REFRESH_SECONDS
            self._uncommitted = {
                place: at for place, at in self._uncommitted.items() if self._committed.get(place) != at
            }

    async def _retry(self) -> None:
        """Commit what is owed, as the next event or word of progress may be far away."""
        while self._uncommitted:
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._commit({})


class WatcherStream(SharedStreamProducer):
    """A watcher as one of Airflow's shared streams, which say when an event was stored.

    Args:
        watcher: the watcher; not entered yet.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    async def open_stream(self) -> AsyncIterator[tuple[ReceivedEvent, tuple[str, int, int]]]:
        """Yield each event together with its topic, partition and offset."""
        async with self._watcher as watcher:
            async for received in watcher.events():
                yield received, (received.topic, received.partition, received.offset)

    def get_advance_lane(self, broker_payload: Any) -> tuple[str, int]:
        """Return topic and partition: offsets are in order in each of them."""
        topic, partition, _offset = broker_payload
        return topic, partition

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Commit what Airflow has stored.

        Raises:
            RuntimeError: an event was not stored in time. Airflow then starts the trigger anew, which goes on
                before that event.
        """
        stored = list(takewhile(_is_stored, batch))
        if stored:
            topic, partition, offset = stored[-1].broker_payload
            await self._watcher.settle((topic, partition), offset)
        if len(stored) < len(batch):
            topic, partition, offset = batch[len(stored)].broker_payload
            raise RuntimeError(f"the event at {topic}[{partition}]@{offset} was not stored in time")


def _is_stored(item: AdvanceItem) -> bool:
    # An event that nobody was there to take counts as neither.
    return not item.outcome.failed and item.outcome.acked + item.outcome.rejected > 0
