"""A topic in memory, a consumer of it, and subscribers, for tests that decide what happens when."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from airflow_workflow_events.errors import ConfigurationError, KafkaError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.intake import Intake, Passed, ReceivedEvent, Taken
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Delivery, Progress, Subscription
from tests.messages import make_message

Place = tuple[str, int]
TOPIC = "events"
EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)


def moment(timestamp_ms: int) -> dt.datetime:
    """The moment of a timestamp."""
    return EPOCH + dt.timedelta(milliseconds=timestamp_ms)


@dataclass(frozen=True)
class Record:
    """A record; without an event it is a tombstone."""

    partition_number: int
    offset_number: int
    timestamp_ms: int
    event: WorkflowEvent | None

    @property
    def taken(self) -> Taken:
        """What an intake makes of it."""
        place = TOPIC, self.partition_number, self.offset_number
        if self.event is None:
            return Passed(*place)
        return ReceivedEvent(self.event, *place, make_message(timestamp_ms=self.timestamp_ms))


class Topic:
    """Partitions with records at rising offsets; there may be offsets without a record."""

    def __init__(self, partitions: int) -> None:
        self.records: dict[int, list[Record]] = {partition: [] for partition in range(partitions)}
        self.ends: dict[int, int] = dict.fromkeys(range(partitions), 0)

    def add_partition(self) -> None:
        self.records[len(self.records)] = []
        self.ends[len(self.ends)] = 0

    def write(
        self, partition: int, event: WorkflowEvent | None, timestamp_ms: int = 1, *, gap: int = 0
    ) -> Record:
        """Write a record, followed by so many offsets that hold none, such as a transaction's marker."""
        record = Record(partition, self.ends[partition], timestamp_ms, event)
        self.records[partition].append(record)
        self.ends[partition] += 1 + gap
        return record

    def make_anew(self) -> None:
        for partition in self.records:
            self.records[partition] = []
            self.ends[partition] = 0

    @property
    def positions(self) -> dict[Place, int]:
        """The ends."""
        return {(TOPIC, partition): end for partition, end in self.ends.items()}


class Client:
    """Reads a topic as :class:`~airflow_workflow_events.kafka.consumer_client.ConsumerClient` does."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self.begun: dict[Place, int] = {}
        self.next: dict[Place, int] = {}
        self.is_settled = False
        self.is_hidden = False
        self.refusals = 0
        self.assignments = 0

    def check_connection(self, _timeout: float) -> None:
        if not self.is_hidden:
            self.begun = self._topic.positions
            self.next = dict(self.begun)
            self.is_settled = True

    def discover(self) -> None:
        for place in self._topic.positions.keys() - self.begun.keys():
            self.begun[place] = self.next[place] = 0

    def offsets_of(self, start: dt.datetime | StartFrom) -> dict[Place, int]:
        if self.refusals:
            self.refusals -= 1
            raise KafkaError("the brokers do not say", retriable=True)
        if start is StartFrom.LATEST:
            return {place: self._topic.ends[place[1]] for place in self.begun}
        since = (cast("dt.datetime", start) - EPOCH) / dt.timedelta(milliseconds=1)
        found = {}
        for place in self.begun:
            offsets = [
                one.offset_number for one in self._topic.records[place[1]] if one.timestamp_ms >= since
            ]
            found[place] = offsets[0] if offsets else self._topic.ends[place[1]]
        return found

    def assign_at(self, positions: Mapping[Place, int]) -> None:
        self.assignments += 1
        self.next = {place: positions.get(place, began) for place, began in self.begun.items()}

    def read(self, partition: int, count: int) -> list[Taken]:
        place = (TOPIC, partition)
        if place not in self.next:
            return []
        if self.next[place] > self._topic.ends[partition]:
            self.next[place] = 0  # auto.offset.reset
        found = [one for one in self._topic.records[partition] if one.offset_number >= self.next[place]]
        taken = found[:count]
        if taken:
            self.next[place] = taken[-1].offset_number + 1
        return [one.taken for one in taken]


class ScriptedIntake:
    """An intake whose ``pull`` does what a test says."""

    def __init__(self, client: Client, pull: Callable[[Client], Sequence[Taken]]) -> None:
        self.client = client
        self._pull = pull
        self.is_closed = False

    def pull(self, _timeout: float) -> list[Taken]:
        assert not self.is_closed
        return list(self._pull(self.client))

    def close(self) -> None:
        self.is_closed = True

    def as_intake(self) -> Intake:
        return cast("Intake", self)


@dataclass(eq=False)
class Subscriber:
    """Somebody who subscribes, and takes up what has come when told to."""

    start: Any
    filters: Sequence[EventFilter] = (EventFilter(),)
    wants_progress: bool = False
    waiting: list[Delivery] = field(default_factory=list)
    taken: list[Delivery] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.subscription = Subscription(
            self.filters,
            self.start,
            self.waiting.extend,
            backlog=self.waiting.__len__,
            wants_progress=self.wants_progress,
        )

    def take_up(self, count: int | None = None) -> None:
        """Take up the next deliveries, or all of them."""
        self.taken += self.waiting[:count]
        del self.waiting[:count]

    @property
    def received(self) -> list[Delivery]:
        return self.taken + self.waiting

    @property
    def offsets(self) -> dict[int, list[int]]:
        """The offsets of the events that came, by partition, in order."""
        found: dict[int, list[int]] = defaultdict(list)
        for one in self.received:
            if isinstance(one, ReceivedEvent):
                found[one.partition].append(one.offset)
        return dict(found)

    @property
    def progress(self) -> list[dict[Place, int]]:
        return [dict(one.positions) for one in self.received if isinstance(one, Progress)]

    @property
    def errors(self) -> list[ConfigurationError]:
        return [one for one in self.received if isinstance(one, ConfigurationError)]


class Clock:
    """Time that passes as a test says, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now
