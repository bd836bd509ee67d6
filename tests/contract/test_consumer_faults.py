"""Brokers that are away, go and come back: no event is lost, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_workflow_events import EmbeddedBroker
from airflow_workflow_events.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
)
from airflow_workflow_events.kafka import commits, consumer_client, dead_letters
from tests.broker import Broker, embedded
from tests.contract.consuming import (
    IDLE_MS,
    committed,
    consumer_of,
    new_group,
    numbers,
    publish,
    put,
    take,
)

TOPIC = "faults"


@pytest.fixture
def faulty() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, to be disturbed."""
    with EmbeddedBroker(topics={TOPIC: 4}) as broker:
        yield broker


# Brokers that are away


def test_a_broker_that_is_away_is_noticed_when_the_consumer_is_made(faulty: EmbeddedBroker) -> None:
    broker = embedded(faulty)
    faulty.take_down()
    with pytest.raises(KafkaConnectionError, match=r"answered within 0\.3 s") as caught:
        consumer_of(broker, TOPIC, connect_timeout_ms=300)
    assert caught.value.retriable
    faulty.bring_up()


def test_one_that_is_slow_to_answer_is_found(faulty: EmbeddedBroker, maybe_group: str | None) -> None:
    broker = embedded(faulty)
    publish(broker, TOPIC, range(3))
    faulty.set_round_trip_ms(400)
    config = {"topic.metadata.refresh.interval.ms": 10_000}  # faster than it answers would keep it busy
    with consumer_of(broker, TOPIC, maybe_group, config=config) as consumer:
        assert numbers(take(consumer, 3)) == [0, 1, 2]


def test_one_that_is_away_at_first_is_waited_for(faulty: EmbeddedBroker, maybe_group: str | None) -> None:
    broker = embedded(faulty)
    publish(broker, TOPIC, range(3))
    faulty.take_down()
    with consumer_of(broker, TOPIC, maybe_group, connect=False) as consumer:
        timer = threading.Timer(0.5, faulty.bring_up)
        timer.start()
        assert numbers(take(consumer, 3)) == [0, 1, 2]
        timer.join()


def test_one_that_has_never_answered_is_no_end_of_the_topic(
    faulty: EmbeddedBroker, maybe_group: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = embedded(faulty)
    faulty.take_down()
    monkeypatch.setattr(consumer_client, "_JOIN_SECONDS" if maybe_group else "_FIND_SECONDS", 0.5)
    options = {"connect": False, "consumer_timeout_ms": 200}
    with consumer_of(broker, TOPIC, maybe_group, **options) as consumer:
        with pytest.raises(KafkaConnectionError, match="answered within"):
            list(consumer)
        faulty.bring_up()
        publish(broker, TOPIC, [0])
        consumer.timeout_seconds = 20
        assert numbers(take(consumer, 1)) == [0]


def test_one_that_goes_amid_reading_and_comes_back_loses_nothing(
    faulty: EmbeddedBroker, maybe_group: str | None
) -> None:
    broker = embedded(faulty)
    publish(broker, TOPIC, range(3))
    with consumer_of(broker, TOPIC, maybe_group) as consumer:
        found = numbers(take(consumer, 2))
        faulty.take_down()
        consumer.timeout_seconds = 0.5
        found += numbers(consumer)  # what was fetched already
        faulty.bring_up()
        publish(broker, TOPIC, range(3, 6))
        consumer.timeout_seconds = 20
        while len(set(found)) < 6:
            found += numbers(take(consumer, 1) or pytest.fail(f"only {found}"))

    assert set(found) == set(range(6))


def test_commits_and_the_end_wait_for_no_broker_for_ever(
    faulty: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(commits, "_COMMIT_SECONDS", 0.5)
    monkeypatch.setattr(consumer_client, "_CLOSE_SECONDS", 0.5)
    broker, group = embedded(faulty), new_group()
    publish(broker, TOPIC, range(3))
    consumer = consumer_of(broker, TOPIC, group)
    take(consumer, 2)
    faulty.take_down()

    with pytest.raises(KafkaTimeoutError, match="delivered again"):
        consumer.commit()
    consumer.close()

    assert "answered while the consumer was closed" in caplog.text
    faulty.bring_up()


def test_what_a_commit_could_not_say_is_said_by_the_next(
    faulty: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "_COMMIT_SECONDS", 0.3)
    broker, group = embedded(faulty), new_group()
    publish(broker, TOPIC, range(3))
    with consumer_of(broker, TOPIC, group) as consumer:
        take(consumer, 2)
        faulty.take_down()
        with pytest.raises(KafkaTimeoutError):
            consumer.commit()
        faulty.bring_up()
        monkeypatch.setattr(commits, "_COMMIT_SECONDS", 30)
        consumer.commit()
        assert committed(broker, TOPIC, group) == 2


def test_dead_letters_wait_for_a_broker_that_is_away(faulty: EmbeddedBroker) -> None:
    broker, group = embedded(faulty), new_group()
    faulty.create_topic("dead", 4)
    put(broker, TOPIC, b"{")
    publish(broker, TOPIC, [1])
    with consumer_of(broker, TOPIC, group, dead_letter_topic="dead", consumer_timeout_ms=3_000) as consumer:
        letters = consumer.intake.poison._dead_letters
        assert letters is not None
        genuine = letters._attempt

        def attempt(*arguments: Any) -> Any:
            faulty.take_down()
            threading.Timer(0.5, faulty.bring_up).start()
            letters._attempt = genuine  # type: ignore[method-assign]
            return genuine(*arguments)

        letters._attempt = attempt  # type: ignore[method-assign,assignment]
        assert numbers(consumer) == [1]

    assert len(broker.messages("dead", 1)) == 1


def test_a_stop_ends_the_wait_for_the_dead_letter_topic_and_commits_nothing(
    faulty: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "_WARN_AFTER_SECONDS", 0.1)
    broker, group = embedded(faulty), new_group()
    put(broker, TOPIC, b"{")
    with consumer_of(broker, TOPIC, group, dead_letter_topic="dead") as consumer:
        letters = consumer.intake.poison._dead_letters
        assert letters is not None
        genuine = letters._attempt

        def attempt(*arguments: Any) -> Any:
            faulty.take_down()
            threading.Timer(0.3, consumer.stop).start()
            return genuine(*arguments)

        letters._attempt = attempt  # type: ignore[method-assign,assignment]
        assert list(consumer) == []
        faulty.bring_up()

    assert committed(broker, TOPIC, group) == 0
    assert "dead-letter topic dead has not confirmed a message for 0.1 s; reading waits for it" in caplog.text


def test_nothing_to_read_is_no_error(broker: Broker, topic: str, maybe_group: str | None) -> None:
    with consumer_of(broker, topic, maybe_group, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []
