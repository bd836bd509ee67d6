"""Whoever waits at a hub gets what they wait for, whoever else comes, dawdles or goes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka import hub as hub_module
from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent, Taken
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Delivery, Subscription
from tests.unit.kafka.scripted import TOPIC, Client, Subscriber
from tests.unit.kafka.stage import PLACE, Stage, Step, read


def test_of_a_topic_that_was_made_anew_everything_is_new(stage: Stage) -> None:
    ones = [stage.subscribe(start) for start in (StartFrom.EARLIEST, StartFrom.LATEST, {PLACE: 0})]
    stage.write(3)

    def make_anew(client: Client) -> None:
        stage.topic.make_anew()
        stage.write(2)

    stage.play(read, read, make_anew, read, read)

    assert [one.offsets[0][-2:] for one in ones] == [[0, 1]] * 3
    assert [len(one.offsets[0]) for one in ones] == [5, 2, 5]


def test_a_position_behind_the_end_is_of_another_topic_of_that_name(stage: Stage) -> None:
    stage.write(2)
    committed = stage.subscribe({PLACE: 40}, wants_progress=True)

    stage.play(read, read)

    assert committed.offsets == {0: [0, 1]}
    assert committed.progress[0] == {PLACE: 0}


def test_who_is_slow_is_left_behind_and_misses_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MAX_BACKLOG", 3)
    slow, quick = stage.subscribe(), stage.subscribe()
    stage.write(4)
    most: list[int] = []

    def quick_takes_up(client: Client) -> Sequence[Taken]:
        quick.take_up()
        most.append(len(slow.waiting))
        stage.write()
        return client.read(0, 2)

    def all_take_up(client: Client) -> Sequence[Taken]:
        slow.take_up()
        return quick_takes_up(client)

    stage.play(*[quick_takes_up] * 6, *[all_take_up] * 20)

    assert max(most) == 3
    assert quick.offsets[0] == list(range(len(quick.offsets[0])))
    assert slow.offsets[0] == list(range(len(slow.offsets[0])))
    assert len(slow.offsets[0]) > 15, "it has caught up"


def test_progress_is_told_at_first_and_then_every_half_minute(stage: Stage) -> None:
    one, other = stage.subscribe(StartFrom.LATEST, wants_progress=True), stage.subscribe(StartFrom.LATEST)

    def later(seconds: float) -> Step:
        def step(client: Client) -> Sequence[Taken]:
            stage.clock.now += seconds
            stage.write()
            return read(client)

        return step

    stage.play(*[later(10)] * 7)

    assert one.progress == [{PLACE: 0}, {PLACE: 3}, {PLACE: 6}]
    assert one.offsets == other.offsets == {0: [0, 1, 2, 3, 4, 5, 6]}
    assert not other.progress


def test_a_new_partition_is_told_as_progress_before_its_first_event(stage: Stage) -> None:
    one = stage.subscribe(StartFrom.LATEST, wants_progress=True)

    def add_partition(client: Client) -> Sequence[Taken]:
        stage.topic.add_partition()
        stage.write(partition=1)
        return read(client)

    stage.play(read, add_partition)

    assert one.offsets == {1: [0]}
    first = next(at for at, delivery in enumerate(one.received) if isinstance(delivery, ReceivedEvent))
    assert {PLACE: 0, (TOPIC, 1): 0} in [getattr(told, "positions", None) for told in one.received[:first]]


def test_going_back_for_one_tells_nobody_else_again(stage: Stage) -> None:
    first = stage.subscribe(StartFrom.LATEST)
    late: list[Subscriber] = []

    def somebody_begins_at_the_beginning(client: Client) -> None:
        late.append(stage.subscribe())

    def write(client: Client) -> Sequence[Taken]:
        stage.write(3)
        return read(client)

    stage.play(write, somebody_begins_at_the_beginning, read, write)

    assert first.offsets == late[0].offsets == {0: [0, 1, 2, 3, 4, 5]}


def test_it_goes_back_again_only_once_it_is_where_it_was(stage: Stage) -> None:
    stage.subscribe(StartFrom.LATEST)
    late: list[Subscriber] = []

    def begins(client: Client) -> Sequence[Taken]:
        late.append(stage.subscribe())
        return client.read(0, 1)

    def write(client: Client) -> Sequence[Taken]:
        stage.write(6)
        return read(client)

    stage.play(write, *[begins] * 6, *[read] * 4)

    assert [one.offsets for one in late] == [{0: [0, 1, 2, 3, 4, 5]}] * 6
    [client] = stage.clients
    assert client.assignments == 2, "once for the first, once for all that came meanwhile"


def test_a_partition_that_brings_nothing_more_is_where_it_was_after_some_seconds(stage: Stage) -> None:
    """The last offsets before its end may be those of records that were compacted away."""
    stage.subscribe(StartFrom.LATEST)
    late: list[Subscriber] = []

    def compact(client: Client) -> Sequence[Taken]:
        stage.write(3)
        taken = read(client)
        del stage.topic.records[0][1:]
        return taken

    def begins(client: Client) -> None:
        late.append(stage.subscribe())

    def wait(client: Client) -> Sequence[Taken]:
        stage.clock.now += 2
        return read(client)

    stage.play(compact, begins, read, begins, wait, wait, read)

    assert [one.offsets for one in late] == [{0: [0]}] * 2


def test_who_unsubscribes_before_it_was_served_gets_nothing(stage: Stage) -> None:
    stage.write()
    one, other = stage.subscribe(wants_progress=True), stage.subscribe()
    stage.hub.unsubscribe(one.subscription)

    stage.play(read, read)

    assert not one.received
    assert other.offsets == {0: [0]}


def test_an_answer_that_the_brokers_owe_is_asked_for_again_after_a_second(stage: Stage) -> None:
    stage.write()
    one = stage.subscribe({PLACE: 9})  # behind the end, which is asked for

    def refuse(client: Client) -> None:
        client.refusals = 1

    def wait(client: Client) -> Sequence[Taken]:
        stage.clock.now += 1
        return read(client)

    made = stage._open

    def refusing() -> Intake:
        intake = made()
        stage.clients[-1].refusals = 1
        return intake

    stage.hub._open_intake = refusing
    stage.play(read, wait, read, read)

    assert one.offsets == {0: [0]}


class OddFilter(EventFilter):
    """A filter that cannot be applied to one event."""

    __slots__ = ("error", "seen")

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.seen = 0

    def matches(self, _event: WorkflowEvent) -> bool:
        self.seen += 1
        if self.seen == 2:
            raise self.error
        return True


@pytest.mark.parametrize("error", [ValueError("odd"), ConfigurationError("odd"), RecursionError()])
def test_who_cannot_tell_whether_it_waits_for_an_event_is_told_so_and_the_others_go_on(
    stage: Stage, error: Exception
) -> None:
    odd, other = Subscriber(StartFrom.EARLIEST, [OddFilter(error)]), stage.subscribe()
    stage.hub.subscribe(odd.subscription)
    stage.write(4)

    stage.play(read)

    assert other.offsets == {0: [0, 1, 2, 3]}
    assert odd.offsets == {0: [0]}, "what it got before"
    assert len(odd.errors) == 1
    assert odd.received[-1:] == odd.errors
    assert len(stage.clients) == 1


def test_who_does_not_take_what_it_is_told_is_served_no_more_and_the_others_are(stage: Stage) -> None:
    def refuse(_deliveries: Sequence[Delivery]) -> None:
        raise ValueError("odd")

    stage.hub.subscribe(Subscription([EventFilter()], StartFrom.EARLIEST, refuse))
    other = stage.subscribe()
    stage.write(3)

    stage.play(read, read)

    assert other.offsets == {0: [0, 1, 2]}
    assert len(stage.hub) == 1
    assert len(stage.clients) == 1
