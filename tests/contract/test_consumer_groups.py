"""Members of a group share the partitions, and whoever comes, goes or moves, no event is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AdminClient,
    NewPartitions,
)

from airflow_workflow_events import WorkflowEventConsumer
from tests.broker import Broker
from tests.contract.consuming import QUICK, committed, consumer_of, new_group, number_of, publish, take
from tests.waiting import await_condition

SECONDS = 40
STRATEGIES = ["range", "cooperative-sticky"]


class Members:
    """Members of a group, each in a thread of its own, and what they have handled."""

    def __init__(
        self, broker: Broker, topic: str, strategy: str = "range", start_from: str = "earliest"
    ) -> None:
        self.group = new_group()
        self.counts: Counter[int] = Counter()
        self.by_member: dict[WorkflowEventConsumer, int] = {}
        self._new: Callable[[], WorkflowEventConsumer] = lambda: consumer_of(
            broker,
            topic,
            self.group,
            start_from=start_from,
            consumer_timeout_ms=None,
            config={"partition.assignment.strategy": strategy},
        )
        self._threads: dict[WorkflowEventConsumer, threading.Thread] = {}

    def join(self) -> WorkflowEventConsumer:
        """Add a member."""
        member = self._new()
        self.by_member[member] = 0

        def read() -> None:
            with member:
                for event in member:
                    self.counts[number_of(event)] += 1
                    self.by_member[member] += 1

        self._threads[member] = threading.Thread(target=read)
        self._threads[member].start()
        return member

    def await_events(self, member: WorkflowEventConsumer, count: int) -> None:
        """Wait until a member has handled so many."""
        await_condition(
            lambda: self.by_member[member] >= count, timeout_seconds=SECONDS, what=f"{count} events"
        )

    def leave(self, member: WorkflowEventConsumer) -> None:
        """Have a member leave in good order."""
        member.stop()
        self._threads[member].join(SECONDS)
        assert not self._threads[member].is_alive()

    def await_numbers(self, count: int) -> None:
        """Wait until every number was handled."""
        await_condition(lambda: len(self.counts) == count, timeout_seconds=SECONDS, what=f"{count} numbers")

    def leave_all(self) -> None:
        """Have everybody leave."""
        for member in self._threads:
            member.stop()
        for member in self._threads:
            self.leave(member)


@pytest.fixture
def members_of() -> Iterator[Callable[..., Members]]:
    made: list[Members] = []

    def make(*arguments: object) -> Members:
        made.append(Members(*arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.leave_all()


@contextmanager
def publishing(broker: Broker, topic: str, count: int) -> Iterator[None]:
    """Publish numbers in the background, a hundred at a time."""

    def publish_all() -> None:
        for start in range(0, count, 100):
            publish(broker, topic, range(start, start + 100))

    thread = threading.Thread(target=publish_all)
    thread.start()
    yield
    thread.join(SECONDS)


@pytest.mark.real_kafka
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_that_come_and_go_amid_the_stream_lose_nothing(
    real_broker: Broker, strategy: str, members_of: Callable[..., Members]
) -> None:
    topic, count = new_group(), 2_000
    real_broker.create_topic(topic)
    members = members_of(real_broker, topic, strategy)
    with publishing(real_broker, topic, count):
        first = members.join()
        await_condition(lambda: members.by_member[first] > 0, timeout_seconds=SECONDS, what="the first event")
        second, third = members.join(), members.join()
        await_condition(
            lambda: len(members.counts) == count or (members.by_member[second] and members.by_member[third]),
            timeout_seconds=SECONDS,
            what="the others' turn",
        )
        members.leave(first)
    members.await_numbers(count)
    members.leave_all()

    assert committed(real_broker, topic, members.group) == count
    # Leaving in good order commits first: only what was in hand at a rebalance may come twice.
    assert members.counts.total() < count * 1.5


def test_who_commits_each_event_goes_on_while_others_come_and_go(
    real_broker: Broker, members_of: Callable[..., Members]
) -> None:
    topic = new_group()
    real_broker.create_topic(topic)
    members = members_of(real_broker, topic, "cooperative-sticky")
    strategy = {"partition.assignment.strategy": "cooperative-sticky"}
    done = threading.Event()

    def publish_on() -> None:
        while not done.is_set():
            publish(real_broker, topic, range(40))

    def come_and_go() -> None:
        try:
            for _ in range(4):
                member = members.join()
                members.await_events(member, 6)
                members.leave(member)
        finally:
            done.set()

    threads = [threading.Thread(target=one) for one in (publish_on, come_and_go)]
    with consumer_of(real_broker, topic, members.group, config=strategy) as consumer:
        threads[0].start()
        for _ in consumer:
            if not threads[1].ident:
                threads[1].start()
            consumer.commit()
            if done.is_set():
                break
    for thread in threads:
        thread.join(SECONDS)

    assert len(members.by_member) == 4
    assert all(count > 5 for count in members.by_member.values())


def test_two_members_share_the_partitions(
    broker: Broker, topic: str, members_of: Callable[..., Members]
) -> None:
    members = members_of(broker, topic)
    first, second = members.join(), members.join()

    def both_have_some() -> bool:
        publish(broker, topic, range(40))
        return bool(members.by_member[first] and members.by_member[second])

    await_condition(both_have_some, timeout_seconds=SECONDS, what="both members to get events")
    members.await_numbers(40)


def test_a_member_that_leaves_with_an_event_in_hand_passes_it_on(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(20), workflow_run_id="one")
    group = new_group()
    first = consumer_of(broker, topic, group)
    assert [number_of(event) for event in take(first, 5)] == [0, 1, 2, 3, 4]
    first.close()

    with consumer_of(broker, topic, group) as second:
        assert [number_of(event) for event in take(second, 16)] == list(range(4, 20))


@pytest.mark.real_kafka
def test_what_a_member_holds_of_a_partition_that_moved_is_left_to_the_other(real_broker: Broker) -> None:
    topic, group = new_group(), new_group()
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(400))
    first = consumer_of(real_broker, topic, group)
    found = Counter(number_of(event) for event in take(first, 10))
    second = consumer_of(real_broker, topic, group, consumer_timeout_ms=None)

    def read() -> None:
        for event in second:
            found[number_of(event)] += 1

    thread = threading.Thread(target=read)
    thread.start()
    pause = threading.Event()
    # Slow, so that the first has most of what it fetched still in hand when half of the partitions move.
    for event in first:
        found[number_of(event)] += 1
        if first.intake.client.moves:
            break
        pause.wait(0.05)
    first.timeout_seconds = 2
    found.update(map(number_of, first))
    await_condition(lambda: len(found) == 400, timeout_seconds=SECONDS, what="all numbers")
    second.stop()
    thread.join(SECONDS)
    first.close()
    second.close()

    assert found.total() < 440, "what moved is handed out by the other alone"


@pytest.mark.real_kafka
@pytest.mark.parametrize("group_id", [None, "members"])
def test_partitions_that_are_added_are_read_from_their_beginning(
    real_broker: Broker, group_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_workflow_events.kafka.assignment._DISCOVERY_SECONDS", 0.3)
    topic = new_group()
    real_broker.create_topic(topic)
    group = group_id and f"{group_id}-{topic}"
    with consumer_of(real_broker, topic, group, start_from="latest", config=QUICK) as consumer:
        publish(real_broker, topic, [-1])
        # In a group the end is where it was when the partitions were assigned.
        consumer.timeout_seconds = 1
        list(consumer)
        consumer.timeout_seconds = 30
        admin = AdminClient({"bootstrap.servers": real_broker.bootstrap_servers, "log_level": 0})
        admin.create_partitions([NewPartitions(topic, 12)])[topic].result(30)
        publish(real_broker, topic, range(60))

        found = {number_of(event) for event in take(consumer, 60)}

    assert found == set(range(60))


@pytest.mark.real_kafka
def test_the_brokers_own_group_protocol_is_understood(real_broker: Broker) -> None:
    topic, group = new_group(), new_group()
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(20))
    options = {"topic": topic, "start_from": "earliest", "consumer_timeout_ms": 20_000}
    with WorkflowEventConsumer(
        real_broker.bootstrap_servers,
        group,
        config={"group.protocol": "consumer"},
        max_poll_interval_ms=30_000,
        **options,  # type: ignore[arg-type]
    ) as consumer:
        assert {number_of(event) for event in take(consumer, 20)} == set(range(20))
        consumer.commit()

    assert committed(real_broker, topic, group) == 20
