"""Where the consumer begins, and what of topics that come later."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from airflow_workflow_events import WorkflowEventConsumer
from airflow_workflow_events.kafka.positions import StartFrom, resolve
from tests.broker import PARTITIONS, Broker
from tests.contract.consuming import (
    IDLE_MS,
    QUICK,
    consumer_of,
    new_group,
    number_of,
    numbers,
    publish,
    take,
)
from tests.waiting import await_condition


def test_without_a_group_latest_is_the_default_and_begins_when_the_consumer_is_made(
    broker: Broker, topic: str
) -> None:
    publish(broker, topic, range(3))
    with consumer_of(broker, topic, start_from=None) as consumer:
        publish(broker, topic, [3])

        assert numbers(take(consumer, 1)) == [3]


def test_a_time_begins_with_the_first_event_since(
    broker: Broker, topic: str, maybe_group: str | None
) -> None:
    publish(broker, topic, range(3))
    threading.Event().wait(0.05)
    now = datetime.now(UTC)
    publish(broker, topic, [3, 4])

    with consumer_of(broker, topic, maybe_group, start_from=now) as consumer:
        assert numbers(take(consumer, 2)) == [3, 4]


def test_a_time_that_is_still_to_come_passes_over_what_comes_before_it(
    broker: Broker, topic: str, maybe_group: str | None
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    with consumer_of(broker, topic, maybe_group, start_from=soon, consumer_timeout_ms=IDLE_MS) as consumer:
        publish(broker, topic, range(3))
        assert list(consumer) == []


def test_a_duration_begins_that_long_ago(broker: Broker, topic: str, maybe_group: str | None) -> None:
    publish(broker, topic, range(3))

    with consumer_of(broker, topic, maybe_group, start_from=timedelta(hours=1)) as consumer:
        assert numbers(take(consumer, 3)) == [0, 1, 2]


def test_a_group_goes_on_where_it_left_off_wherever_it_was_told_to_begin(broker: Broker, topic: str) -> None:
    group = new_group()
    publish(broker, topic, range(3))
    with consumer_of(broker, topic, group) as consumer:
        assert numbers(take(consumer, 3)) == [0, 1, 2]
    publish(broker, topic, [3])

    with consumer_of(broker, topic, group, start_from="latest") as consumer:
        assert numbers(take(consumer, 1)) == [3]
    publish(broker, topic, [4])
    with consumer_of(broker, topic, group, start_from="committed") as consumer:
        assert numbers(take(consumer, 1)) == [4]


def test_a_group_that_begins_with_the_latest_misses_nothing_after_a_member_that_read_nothing(
    broker: Broker, topic: str
) -> None:
    group = new_group()
    publish(broker, topic, range(3))
    with consumer_of(broker, topic, group, start_from="latest", consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []
    publish(broker, topic, [3])

    with consumer_of(broker, topic, group, start_from="latest") as consumer:
        assert numbers(take(consumer, 1)) == [3]


def test_a_topic_that_is_made_later_is_read_from_its_beginning(
    broker: Broker, maybe_group: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"events-{uuid.uuid4()}"
    found: list[int] = []
    with WorkflowEventConsumer(
        broker.bootstrap_servers, maybe_group, topic=name, start_from="latest", config=QUICK
    ) as consumer:

        def read() -> None:
            found.extend(number_of(event) for event in islice(consumer, 3))

        reader = threading.Thread(target=read)
        reader.start()
        await_condition(
            lambda: f"topic {name} does not exist yet" in caplog.text, timeout_seconds=20, what="the warning"
        )
        broker.create_topic(name)
        publish(broker, name, range(3))
        reader.join(30)
        consumer.stop()
        reader.join(30)

    assert sorted(found) == [0, 1, 2]


def test_the_timeout_ends_it_where_the_topic_does_not_exist(broker: Broker, maybe_group: str | None) -> None:
    with consumer_of(broker, f"events-{uuid.uuid4()}", maybe_group, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []


@pytest.mark.parametrize("start", [StartFrom.LATEST, datetime(2026, 1, 1, tzinfo=UTC), datetime.now(UTC)])
def test_where_many_partitions_begin_takes_no_more_questions_than_where_one_does(
    broker: Broker, topic: str, start: StartFrom | datetime
) -> None:
    publish(broker, topic, range(20))

    class Counted(Consumer):
        questions = 0

        def offsets_for_times(self, *args: Any, **kwargs: Any) -> Any:
            self.questions += 1
            return super().offsets_for_times(*args, **kwargs)

        def get_watermark_offsets(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("asks about a single partition")

    consumer = Counted({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none"})
    partitions = [TopicPartition(topic, one) for one in range(PARTITIONS)]
    begun = resolve(consumer, partitions, start, 10)
    consumer.close()

    assert [one.partition.partition for one in begun] == list(range(PARTITIONS))
    assert consumer.questions <= 4


def test_a_topic_without_records_begins_at_its_end_whatever_the_moment(broker: Broker, topic: str) -> None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none"})
    for start in (StartFrom.LATEST, datetime(2026, 1, 1, tzinfo=UTC)):
        (begun,) = resolve(consumer, [TopicPartition(topic, 0)], start, 10)
        assert (begun.partition.offset, begun.not_before_ms) == (0, None)
    consumer.close()
