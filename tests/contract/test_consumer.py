"""The consumer hands out every event, counts it as handled when the next is asked for, and stops well."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from airflow_workflow_events import (
    CloudEventsMode,
    ConsumerClosedError,
    EventType,
    WorkflowEvent,
    WorkflowEventProducer,
)
from airflow_workflow_events.metrics import CONSUMED
from tests.broker import Broker
from tests.contract.consuming import (
    IDLE_MS,
    committed,
    consumer_of,
    new_group,
    number_of,
    numbers,
    publish,
    take,
)
from tests.counting import Counting
from tests.events import make_event


def test_events_come_out_as_they_went_in(broker: Broker, topic: str, maybe_group: str | None) -> None:
    events = publish(broker, topic, range(20))

    with consumer_of(broker, topic, maybe_group) as consumer:
        found = take(consumer, 20)

    assert sorted(found, key=number_of) == events


@pytest.mark.parametrize("mode", CloudEventsMode)
def test_every_layout_is_read(broker: Broker, topic: str, mode: CloudEventsMode) -> None:
    event = make_event(payload={"data": {"text": "grüß"}})
    with WorkflowEventProducer(broker.bootstrap_servers, topic=topic, cloudevents=mode) as producer:
        assert producer.publish_event(event)

    with consumer_of(broker, topic) as consumer:
        assert take(consumer, 1) == [event]


def test_a_record_says_where_it_was_read(broker: Broker, topic: str) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    (event,) = publish(broker, topic, [1])

    with consumer_of(broker, topic) as consumer:
        received = next(consumer.records())

    assert (received.event, received.topic, received.offset) == (event, topic, 0)
    assert received.timestamp_ms is not None
    assert received.timestamp_ms > before.timestamp() * 1000
    assert received.message.key() == event.ordering_key.encode()


def test_the_events_of_a_run_come_in_their_order(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(200), workflow_run_id="one")

    with consumer_of(broker, topic) as consumer:
        assert [number_of(event) for event in take(consumer, 200)] == list(range(200))


def test_several_topics_are_read(broker: Broker, topic: str, maybe_group: str | None) -> None:
    other = f"events-{uuid.uuid4()}"
    broker.create_topic(other)
    publish(broker, topic, [1])
    publish(broker, other, [2])

    with consumer_of(broker, [topic, other], maybe_group) as consumer:
        assert numbers(take(consumer, 2)) == [1, 2]


def test_only_what_is_asked_for_is_handed_out_and_the_rest_counts_as_read(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(5), workflow_id="sales_eu")
    publish(broker, topic, range(5, 10), workflow_id="sales_us")
    publish(broker, topic, range(10, 15), workflow_id="stock", event_type=EventType.WORKFLOW_FAILED)
    group = new_group()

    with consumer_of(
        broker,
        topic,
        group,
        workflow_id="sales_*",
        data={"number": {"$gte": 3}},
        consumer_timeout_ms=IDLE_MS,
    ) as consumer:
        assert numbers(consumer) == list(range(3, 10))

    assert committed(broker, topic, group) == 15


# What counts as handled


def test_an_event_is_committed_once_the_next_one_is_asked_for(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(3), workflow_run_id="one")
    group = new_group()
    consumer = consumer_of(broker, topic, group)

    assert [number_of(event) for event in take(consumer, 2)] == [0, 1]
    consumer.close()

    assert committed(broker, topic, group) == 1
    with consumer_of(broker, topic, group) as consumer:
        assert [number_of(event) for event in take(consumer, 2)] == [1, 2]


def test_a_block_that_ends_well_has_handled_its_last_event(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(3), workflow_run_id="one")
    group = new_group()
    with consumer_of(broker, topic, group) as consumer:
        for _ in consumer:
            break

    assert committed(broker, topic, group) == 1


def test_a_block_that_ends_with_an_exception_has_not(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(3), workflow_run_id="one")
    group = new_group()

    def fail() -> None:
        with consumer_of(broker, topic, group) as consumer:
            for event in consumer:
                if number_of(event) == 1:
                    raise LookupError

    with pytest.raises(LookupError):
        fail()

    with consumer_of(broker, topic, group) as consumer:
        assert [number_of(event) for event in take(consumer, 2)] == [1, 2]


def test_after_a_break_the_next_loop_goes_on_behind_the_event_in_hand(
    broker: Broker, topic: str, maybe_group: str | None
) -> None:
    publish(broker, topic, range(10), workflow_run_id="one")
    with consumer_of(broker, topic, maybe_group) as consumer:
        first = [number_of(event) for event in take(consumer, 4)]
        rest = [number_of(event) for event in take(consumer, 6)]

    assert first + rest == list(range(10))


def test_commit_is_confirmed_and_includes_the_event_in_hand(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(5))
    group = new_group()
    with consumer_of(broker, topic, group) as consumer:
        consumer.commit()  # nothing to commit is no error
        for _, _event in zip(range(3), consumer, strict=False):
            pass
        consumer.commit()
        assert committed(broker, topic, group) == 3
        consumer.commit()


def test_a_commit_for_each_event_keeps_order_and_leaves_nothing_out(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(1_500), workflow_run_id="one")
    group = new_group()
    with consumer_of(broker, topic, group) as consumer:
        found = []
        for event in consumer:
            found.append(number_of(event))
            consumer.commit()
            if len(found) == 1_500:
                break

    assert found == list(range(1_500))
    assert committed(broker, topic, group) == 1_500


@pytest.mark.parametrize(("count", "characters", "most"), [(3_000, 0, 600), (20, 200_000, 7)])
def test_whoever_serves_its_group_amid_a_batch_gathers_a_bounded_number_of_messages_and_bytes(
    broker: Broker, topic: str, count: int, characters: int, most: int
) -> None:
    payload = {"data": {"blob": "x" * characters}}
    publish(broker, topic, range(count), workflow_run_id="one", payload=payload)
    with consumer_of(broker, topic, new_group()) as consumer:
        client = consumer.intake.client
        found = client.next_batch(1, 20)
        while len(found) < count:
            for _ in range(2_000):
                client.serve()
            gathered = client.next_batch(1, 20)
            assert len(gathered) <= most
            found += gathered

    assert [message.offset() for message in found] == list(range(count))


def test_a_topic_that_is_named_twice_is_read_once(
    broker: Broker, topic: str, maybe_group: str | None
) -> None:
    publish(broker, topic, range(3))
    with consumer_of(broker, [topic, topic], maybe_group, consumer_timeout_ms=IDLE_MS) as consumer:
        assert numbers(consumer) == [0, 1, 2]


def test_a_position_in_somebody_elses_partition_is_not_committed(real_broker: Broker) -> None:
    topic, group = new_group(), new_group()
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(3), workflow_run_id="one")
    with consumer_of(real_broker, topic, group) as consumer:
        take(consumer, 2)
        consumer.intake.client.store({("another", 0): 5, (topic, 99): 7})
        consumer.commit()

        assert committed(real_broker, topic, group) == 2


def test_without_a_group_nothing_is_committed_and_everything_is_read_again(
    broker: Broker, topic: str
) -> None:
    publish(broker, topic, range(3))
    for _ in range(2):
        with consumer_of(broker, topic) as consumer:
            assert numbers(take(consumer, 3)) == [0, 1, 2]
            consumer.commit()


def test_handled_events_are_counted(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(3))
    counting = Counting()
    with consumer_of(broker, topic, metrics=counting) as consumer:
        assert len(take(consumer, 3)) == 3

    assert counting.counts == {CONSUMED: 3}


# The end


def test_stop_ends_the_iteration_after_the_event_in_hand(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(5), workflow_run_id="one")
    group = new_group()
    with consumer_of(broker, topic, group, consumer_timeout_ms=None) as consumer:
        for event in consumer:
            if number_of(event) == 2:
                consumer.stop()
        assert list(consumer) == []

    assert committed(broker, topic, group) == 3


def test_stop_from_another_thread_ends_a_wait(broker: Broker, topic: str, maybe_group: str | None) -> None:
    with consumer_of(broker, topic, maybe_group, consumer_timeout_ms=None) as consumer:
        timer = threading.Timer(0.3, consumer.stop)
        timer.start()
        assert list(consumer) == []
        timer.join()


def test_a_closed_consumer_refuses(broker: Broker, topic: str, maybe_group: str | None) -> None:
    consumer = consumer_of(broker, topic, maybe_group)
    consumer.close()
    consumer.close()

    uses: list[Callable[[], object]] = [
        lambda: list(consumer),
        lambda: list(consumer.records()),
        lambda: consumer.run(print),
        consumer.commit,
        lambda: consumer.check_connection(1),
    ]
    for use in uses:
        with pytest.raises(ConsumerClosedError, match="create a new one"):
            use()
    assert "closed" in repr(consumer)


def test_closing_amid_the_iteration_ends_it(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(3))
    consumer = consumer_of(broker, topic, new_group())
    found: list[WorkflowEvent] = []
    for event in consumer:
        found.append(event)
        consumer.close()

    assert len(found) == 1
