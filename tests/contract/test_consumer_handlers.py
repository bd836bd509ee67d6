"""``run`` calls a handler, tries again, and gives up in good order; events that were seen are passed over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import (
    ConfigurationError,
    SeenInMemory,
    SeenInSqlite,
    WorkflowEvent,
    WorkflowEventProducer,
)
from airflow_workflow_events.events.seen import SeenEvents
from airflow_workflow_events.metrics import CONSUMED, REPEATED
from tests.broker import Broker
from tests.contract.consuming import IDLE_MS, committed, consumer_of, new_group, number_of, publish, take
from tests.counting import Counting
from tests.events import make_event

QUICKLY: dict[str, Any] = {"retry_backoff_ms": 1, "max_retry_backoff_ms": 1}


def test_a_handler_gets_every_event_and_the_number_is_returned(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(10))
    group = new_group()
    handled: list[WorkflowEvent] = []
    with consumer_of(broker, topic, group, consumer_timeout_ms=IDLE_MS) as consumer:
        assert consumer.run(handled.append) == 10

    assert sorted(map(number_of, handled)) == list(range(10))
    assert committed(broker, topic, group) == 10


def test_a_handler_that_fails_is_called_again_before_the_next_event(
    embedded_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic = new_group()
    publish(embedded_broker, topic, range(3), workflow_run_id="one")
    calls: list[int] = []

    def handle(event: WorkflowEvent) -> None:
        calls.append(number_of(event))
        if calls.count(1) in {1, 2} and calls[-1] == 1:
            raise ConnectionError("no database")

    with consumer_of(embedded_broker, topic, consumer_timeout_ms=IDLE_MS) as consumer:
        assert consumer.run(handle, **QUICKLY) == 3

    assert calls == [0, 1, 1, 1, 2]
    assert "attempt 1 of 4" in caplog.text
    assert "ConnectionError: no database" in caplog.text


def test_without_a_dead_letter_topic_the_exception_is_raised_and_the_event_is_not_passed_over(
    broker: Broker, topic: str
) -> None:
    publish(broker, topic, range(3), workflow_run_id="one")
    group = new_group()
    handled: list[int] = []

    def fail_at_one(event: WorkflowEvent) -> None:
        if number_of(event) == 1:
            raise LookupError("no such order")
        handled.append(number_of(event))

    with consumer_of(broker, topic, group) as consumer:
        for _ in range(2):
            with pytest.raises(LookupError, match="no such order"):
                consumer.run(fail_at_one, max_retries=1, **QUICKLY)
        consumer.commit()
        assert committed(broker, topic, group) == 1
        assert [number_of(event) for event in take(consumer, 2)] == [1, 2]


def test_a_handler_that_is_interrupted_gets_its_event_again(embedded_broker: Broker) -> None:
    topic = new_group()
    publish(embedded_broker, topic, range(2), workflow_run_id="one")

    def interrupt(event: WorkflowEvent) -> None:
        raise KeyboardInterrupt

    with consumer_of(embedded_broker, topic) as consumer:
        with pytest.raises(KeyboardInterrupt):
            consumer.run(interrupt)
        assert [number_of(event) for event in take(consumer, 2)] == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_event_in_hand_and_the_handlers_are_as_before(
    broker: Broker, topic: str, number: signal.Signals
) -> None:
    publish(broker, topic, range(5), workflow_run_id="one")
    group = new_group()
    before = signal.getsignal(number)

    def handle(event: WorkflowEvent) -> None:
        if number_of(event) == 1:
            os.kill(os.getpid(), number)

    with consumer_of(broker, topic, group, consumer_timeout_ms=None) as consumer:
        assert consumer.run(handle) == 2

    assert signal.getsignal(number) is before
    assert committed(broker, topic, group) == 2


def test_a_signal_during_a_wait_ends_it(broker: Broker, topic: str) -> None:
    with consumer_of(broker, topic, new_group(), consumer_timeout_ms=None) as consumer:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        assert consumer.run(print) == 0
        timer.join()


def test_a_stop_between_two_attempts_leaves_the_event_for_the_next_time(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")
    group = new_group()

    def fail(event: WorkflowEvent) -> None:
        consumer.stop()
        raise LookupError

    with consumer_of(broker, topic, group) as consumer:
        assert consumer.run(fail, retry_backoff_ms=5_000) == 0

    with consumer_of(broker, topic, group) as consumer:
        assert [number_of(event) for event in take(consumer, 2)] == [0, 1]


def test_it_runs_in_a_thread_as_well(embedded_broker: Broker) -> None:
    topic = new_group()
    publish(embedded_broker, topic, range(3))
    counts: list[int] = []
    with consumer_of(embedded_broker, topic, consumer_timeout_ms=IDLE_MS) as consumer:
        thread = threading.Thread(target=lambda: counts.append(consumer.run(lambda _event: None)))
        thread.start()
        thread.join(30)
    assert counts == [3]


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"retry_backoff_ms": 0},
        {"retry_backoff_ms": 100, "max_retry_backoff_ms": 50},
        {"max_retries": 100, "max_retry_backoff_ms": 10_000},
    ],
)
def test_retries_that_make_no_sense_are_refused(embedded_broker: Broker, options: dict[str, Any]) -> None:
    with consumer_of(embedded_broker, "t") as consumer, pytest.raises(ConfigurationError, match="retr"):
        consumer.run(print, **options)


def test_what_cannot_be_called_is_refused_before_anything_is_read(embedded_broker: Broker) -> None:
    with consumer_of(embedded_broker, "t") as consumer, pytest.raises(ConfigurationError, match="None: use"):
        consumer.run(None)  # type: ignore[arg-type]


def test_a_handler_that_takes_no_event_is_refused_before_it_costs_one(embedded_broker: Broker) -> None:
    with consumer_of(embedded_broker, "t") as consumer:
        for handler in (lambda: None, lambda one, other: None):
            with pytest.raises(ConfigurationError, match="does not take an event alone"):
                consumer.run(handler)  # type: ignore[arg-type]


@pytest.mark.parametrize("stop_on", [signal.SIGTERM, "SIGTERM", [signal.SIGKILL], [99], 7])
def test_signals_that_cannot_be_caught_are_refused(embedded_broker: Broker, stop_on: Any) -> None:
    with consumer_of(embedded_broker, "t") as consumer, pytest.raises(ConfigurationError, match="stop_on is"):
        consumer.run(print, stop_on=stop_on)


def test_an_async_handler_has_not_handled_its_event(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")
    group = new_group()

    async def handle(event: WorkflowEvent) -> None:
        raise AssertionError(event)

    with consumer_of(broker, topic, group) as consumer:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="a coroutine, which nobody awaits"):
                consumer.run(handle)
        consumer.commit()
        assert committed(broker, topic, group) == 0
        assert [number_of(event) for event in take(consumer, 2)] == [0, 1]


def test_a_generator_as_handler_has_not_handled_its_event(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")
    group = new_group()

    def handle(event: WorkflowEvent) -> Iterator[None]:
        yield
        raise AssertionError(event)

    with consumer_of(broker, topic, group) as consumer:
        with pytest.raises(ConfigurationError, match="a generator, of whose code nothing has run"):
            consumer.run(handle)
        consumer.commit()
        assert committed(broker, topic, group) == 0
        assert [number_of(event) for event in take(consumer, 2)] == [0, 1]


def test_retries_are_held_against_the_interval_that_is_in_force(embedded_broker: Broker) -> None:
    config = {"max.poll.interval.ms": 6_000}
    with (
        consumer_of(embedded_broker, "t", new_group(), config=config) as consumer,
        pytest.raises(ConfigurationError, match="gives an event only 6 s"),
    ):
        consumer.run(print, max_retries=10)


# Events that come twice


@pytest.fixture(params=["memory", "sqlite"])
def seen(request: pytest.FixtureRequest, tmp_path: Path) -> SeenEvents:
    return SeenInMemory() if request.param == "memory" else SeenInSqlite(tmp_path / "seen.db")


def test_an_event_that_comes_twice_is_handed_out_once(broker: Broker, topic: str, seen: SeenEvents) -> None:
    first, second = make_event(), make_event()
    with WorkflowEventProducer(broker.bootstrap_servers, topic=topic) as producer:
        for event in (first, first, second, first):
            assert producer.publish_event(event)
    group, counting = new_group(), Counting()

    with consumer_of(broker, topic, group, seen=seen, metrics=counting, consumer_timeout_ms=IDLE_MS) as one:
        assert sorted(event.event_id for event in one) == sorted([first.event_id, second.event_id])
        assert one.repeated_count == 2

    assert counting.counts == {CONSUMED: 2, REPEATED: 2}
    assert committed(broker, topic, group) == 4


def test_an_event_that_was_not_handled_has_not_been_seen(
    broker: Broker, topic: str, seen: SeenEvents
) -> None:
    (event,) = publish(broker, topic, [1])
    group = new_group()
    consumer = consumer_of(broker, topic, group, seen=seen)
    assert take(consumer, 1) == [event]
    consumer.close()
    assert event.event_id not in seen

    with consumer_of(broker, topic, group, seen=seen) as consumer:
        assert take(consumer, 1) == [event]
    assert event.event_id in seen


def test_a_memory_that_fails_at_the_end_leaves_no_open_client(embedded_broker: Broker) -> None:
    class Full(SeenInMemory):
        def add(self, event_id: str) -> None:
            raise OSError(f"no space left for {event_id}")

    topic = new_group()
    publish(embedded_broker, topic, [0])

    consumer = consumer_of(embedded_broker, topic, new_group(), seen=Full())
    with pytest.raises(OSError, match="no space left"), consumer:
        next(iter(consumer))

    assert "closed" in repr(consumer)


def test_a_file_remembers_across_restarts(embedded_broker: Broker, tmp_path: Path) -> None:
    topic = new_group()
    publish(embedded_broker, topic, range(3))
    for expected in (3, 0):
        seen = SeenInSqlite(tmp_path / "seen.db")
        with consumer_of(embedded_broker, topic, seen=seen, consumer_timeout_ms=IDLE_MS) as consumer:
            assert len(list(consumer)) == expected
        seen.close()


def test_a_dead_letter_that_is_written_back_is_handled(embedded_broker: Broker) -> None:
    topic, letters = new_group(), new_group()
    seen, metrics = SeenInMemory(), Counting()
    [event] = publish(embedded_broker, topic, [0])

    def fail(event: WorkflowEvent) -> None:
        raise ConnectionError("no database")

    options: dict[str, Any] = {"dead_letter_topic": letters, "seen": seen, "consumer_timeout_ms": IDLE_MS}
    with consumer_of(embedded_broker, topic, metrics=metrics, **options) as consumer:
        assert consumer.run(fail, max_retries=0) == 0
    assert event.event_id not in seen
    assert metrics.counts[CONSUMED] == 0

    with consumer_of(embedded_broker, letters, consumer_timeout_ms=IDLE_MS) as consumer:
        handled: list[WorkflowEvent] = []
        assert consumer.run(handled.append) == 1
    assert handled == [event]


def test_an_exception_without_a_text_can_be_dead_lettered(
    embedded_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise AttributeError("no code")

    def fail_at_zero(event: WorkflowEvent) -> None:
        if number_of(event) == 0:
            raise MuteError

    topic = new_group()
    publish(embedded_broker, topic, range(2), workflow_run_id="one")
    options: dict[str, Any] = {"dead_letter_topic": new_group(), "consumer_timeout_ms": IDLE_MS}
    with consumer_of(embedded_broker, topic, **options) as consumer:
        assert consumer.run(fail_at_zero, max_retries=1, **QUICKLY) == 1

    assert "after 2 attempts: MuteError: MuteError" in caplog.text
