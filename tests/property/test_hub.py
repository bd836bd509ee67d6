"""Whatever others do, a subscription gets each event that it waits for once, and in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_workflow_events.errors import KafkaError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka import hub as hub_module
from airflow_workflow_events.kafka.hub import EventHub
from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent, Taken
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Progress
from tests.events import make_event
from tests.unit.kafka.scripted import (
    TOPIC,
    Client,
    Clock,
    Record,
    ScriptedIntake,
    Subscriber,
    Topic,
    moment,
)

_WORKFLOWS = ("a", "b")
_EVENTS = {workflow_id: make_event(workflow_id=workflow_id) for workflow_id in _WORKFLOWS}
_FILTERS = {
    "a": (EventFilter(workflow_id="a"),),
    "b": (EventFilter(workflow_id="b"), EventFilter(workflow_id="b", event_type="workflow.failed")),
    "any": (EventFilter(workflow_id="*"),),
}
_MAX_STEPS = 40

writes = st.tuples(
    st.just("write"),
    st.integers(0, 2),
    st.sampled_from([*_WORKFLOWS, "a", "b", None]),
    st.integers(1, 9),  # its timestamp, in no order
    st.sampled_from([0, 0, 0, 2]),  # offsets after it that hold nothing
)
starts = st.one_of(
    st.sampled_from([StartFrom.LATEST, StartFrom.EARLIEST]),
    st.integers(1, 9).map(moment),
    st.dictionaries(st.integers(0, 2).map(lambda partition: (TOPIC, partition)), st.integers(0, 6)),
)
steps = st.lists(
    st.one_of(
        writes,
        writes,
        st.tuples(st.just("subscribe"), starts, st.sampled_from(sorted(_FILTERS)), st.booleans()),
        st.tuples(st.just("subscribe"), starts, st.sampled_from(sorted(_FILTERS)), st.booleans()),
        st.tuples(st.just("unsubscribe"), st.integers(0, 5)),
        st.tuples(st.just("take up"), st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("pass"), st.sampled_from([1.0, 5.0, 40.0])),
        st.tuples(st.just("fail"), st.integers(0, 2)),
        st.tuples(
            st.just("ask in vain"),
        ),
        st.tuples(
            st.just("add partition"),
        ),
    ),
    max_size=_MAX_STEPS,
)


@pytest.fixture(autouse=True)
def _small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MAX_BACKLOG", 3)
    monkeypatch.setattr(hub_module, "_FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(hub_module, "_LONGEST_PAUSE_SECONDS", 0.0)


class Play:
    """Runs a hub in this thread: whenever it pulls, the next steps of the script are done."""

    def __init__(self, script: list[Any], partitions: int) -> None:
        self.topic = Topic(partitions)
        self.subscribers: list[Subscriber] = []
        self.gone: dict[Subscriber, int] = {}
        #: Where the hub had been when somebody subscribed, and the ends when it pulled next.
        self.reached: dict[Subscriber, dict[Any, int]] = {}
        self.ends: dict[Subscriber, dict[Any, int]] = {}
        self._script: Iterator[Any] = iter(script)
        self._hidden = 0
        self._idle = 0
        self.clock = Clock()
        self.hub = EventHub(self._open, "topic", linger_seconds=1e9)
        self.hub._thread = threading.current_thread()  # it needs none

    def run(self) -> None:
        self._subscribe(StartFrom.EARLIEST, "any", wants_progress=True)
        self.hub._run()

    def _open(self) -> Intake:
        client = Client(self.topic)
        client.is_hidden = self._hidden > 0
        self._hidden -= 1
        return ScriptedIntake(client, self._pull).as_intake()

    def _pull(self, client: Client) -> list[Taken]:
        for one in self.subscribers:
            self.ends.setdefault(one, self.topic.positions)
        for step in self._script:
            name, *arguments = step
            if name == "read":
                return self._read(client, *arguments)
            if name == "fail":
                (self._hidden,) = arguments
                raise KafkaError("the client has failed")
            if name == "ask in vain":
                client.refusals = 1
            else:
                getattr(self, f"_{name.replace(' ', '_')}")(*arguments)
        return self._finish(client)

    def _read(self, client: Client, partition: int, count: int) -> list[Taken]:
        client.discover()
        return client.read(partition % len(self.topic.records), count)

    def _finish(self, client: Client) -> list[Taken]:
        """Read to the end, over and over, until nobody has anything to take up for a while."""
        client.discover()
        self.clock.now += 1.0
        found = [taken for partition in self.topic.records for taken in client.read(partition, 5)]
        active = bool(found)
        for one in self.subscribers:
            active = active or any(isinstance(delivery, ReceivedEvent) for delivery in one.waiting)
            one.take_up()
        self._idle = 0 if active else self._idle + 1
        if self._idle > 10:
            self.hub.close(wait=False)
        return found

    def _write(self, partition: int, workflow_id: str | None, timestamp_ms: int, gap: int) -> None:
        event = None if workflow_id is None else _EVENTS[workflow_id]
        self.topic.write(partition % len(self.topic.records), event, timestamp_ms, gap=gap)

    def _add_partition(self) -> None:
        if len(self.topic.records) < 3:
            self.topic.add_partition()

    def _subscribe(self, start: Any, filters: str, wants_progress: bool) -> None:
        if isinstance(start, dict):  # nobody has committed more than there is
            start = {place: min(at, self.topic.positions.get(place, 0)) for place, at in start.items()}
        one = Subscriber(start, _FILTERS[filters], wants_progress)
        self.subscribers.append(one)
        self.reached[one] = dict(self.hub._reached)
        self.hub.subscribe(one.subscription)

    def _unsubscribe(self, index: int) -> None:
        one = self.subscribers[index % len(self.subscribers)]
        self.hub.unsubscribe(one.subscription)
        self.gone.setdefault(one, len(one.received))

    def _take_up(self, index: int, count: int) -> None:
        self.subscribers[index % len(self.subscribers)].take_up(count)

    def _pass(self, seconds: float) -> None:
        self.clock.now += seconds


def _awaited(play: Play, one: Subscriber) -> dict[int, list[int]]:
    """The offsets that a subscription waits for, by partition; with LATEST as many as it may have got."""

    def counts(record: Record) -> bool:
        place = (TOPIC, record.partition_number)
        if record.event is None or not any(each.matches(record.event) for each in one.filters):
            return False
        if one.start is StartFrom.LATEST:
            return record.offset_number >= play.reached[one].get(place, 0)
        if isinstance(one.start, dict):
            return bool(record.offset_number >= one.start.get(place, 0))
        return one.start is StartFrom.EARLIEST or record.timestamp_ms >= one.subscription.since_ms

    found = {
        partition: [record.offset_number for record in records if counts(record)]
        for partition, records in play.topic.records.items()
    }
    return {partition: offsets for partition, offsets in found.items() if offsets}


def _check_progress(one: Subscriber, awaited: dict[int, list[int]]) -> None:
    had: dict[int, set[int]] = {}
    for delivery in one.received:
        if isinstance(delivery, Progress):
            for (_, partition), position in delivery.positions.items():
                due = {offset for offset in awaited.get(partition, ()) if offset < position}
                if one.start is StartFrom.LATEST:
                    first = min(had.get(partition, {position}))
                    due = {offset for offset in due if offset >= first}
                assert due <= had.get(partition, set()), "a position is not ahead of what came"
        elif isinstance(delivery, ReceivedEvent):
            had.setdefault(delivery.partition, set()).add(delivery.offset)


@given(script=steps, partitions=st.integers(1, 2))
def test_each_subscription_gets_each_of_its_events_once_and_in_order(
    script: list[Any], partitions: int
) -> None:
    play = Play(script, partitions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_module, "monotonic", play.clock)
        play.run()

    for one in play.subscribers:
        awaited, got = _awaited(play, one), one.offsets
        if one in play.gone:
            assert len(one.received) == play.gone[one], "nothing comes after unsubscribing"
            for partition, offsets in got.items():
                start = awaited[partition].index(offsets[0]) if one.start is StartFrom.LATEST else 0
                assert offsets == awaited[partition][start : start + len(offsets)]
        elif one.start is StartFrom.LATEST:
            for partition, offsets in awaited.items():
                certain = [at for at in offsets if at >= play.ends[one].get((TOPIC, partition), 0)]
                received = got.get(partition, [])
                assert received == offsets[len(offsets) - len(received) :]
                assert len(received) >= len(certain)
        else:
            assert got == awaited
        _check_progress(one, awaited)
