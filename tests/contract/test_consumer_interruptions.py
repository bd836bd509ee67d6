"""Signals, forks, callbacks that raise, handlers that are slow: whatever cuts in, no event is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from itertools import islice

import pytest

from airflow_workflow_events import ConsumerClosedError
from tests.broker import Broker
from tests.contract.consuming import (
    QUICK,
    committed,
    consumer_of,
    new_group,
    number_of,
    numbers,
    publish,
    put,
    take,
)


def run_program(name: str, *arguments: str) -> str:
    """Run a program of ``tests.contract.processes`` to its good end and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.contract.processes.{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.real_kafka  # librdkafka's mock never answers once a member has left while it joined
def test_signals_that_raise_at_any_moment_cost_no_event(real_broker: Broker) -> None:
    topic = new_group()
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(2_000))

    interrupted = run_program("interrupted_consumer", real_broker.bootstrap_servers, topic, "2000")

    assert int(interrupted) > 3


def test_the_child_of_a_fork_is_refused_and_ends_and_the_parent_goes_on(broker: Broker, topic: str) -> None:
    put(broker, topic, b"{", partition=0)
    publish(broker, topic, range(4))
    group, dead = new_group(), f"events-dead-{uuid.uuid4()}"
    broker.create_topic(dead)

    run_program("forking_consumer", broker.bootstrap_servers, topic, group, dead)

    assert committed(broker, topic, group) >= 4


def test_callbacks_of_ones_own_may_raise(embedded_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    topic = new_group()
    publish(embedded_broker, topic, range(3))

    def fail(*_arguments: object) -> None:
        raise ValueError("no dashboard")

    config = {"stats_cb": fail, "statistics.interval.ms": 10, "on_commit": fail, "error_cb": fail}
    with consumer_of(embedded_broker, topic, new_group(), config=config) as consumer:
        assert numbers(take(consumer, 3)) == [0, 1, 2]
        consumer.commit()
        assert "no dashboard" in caplog.text


def test_a_consumer_that_was_interrupted_while_it_read_says_so(
    embedded_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_group()
    publish(embedded_broker, topic, range(3))
    with consumer_of(embedded_broker, topic) as consumer:

        def interrupt(*_arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(consumer.intake.client, "_good", interrupt)
        with pytest.raises(KeyboardInterrupt):
            take(consumer, 3)
        with pytest.raises(ConsumerClosedError, match=r"interrupted by KeyboardInterrupt.*create a new"):
            take(consumer, 3)


def test_events_that_turn_out_slow_do_not_cost_the_membership(
    broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    # All at once they take longer than the interval, each of them takes much less.
    publish(broker, topic, range(10), workflow_run_id="one")
    pause = threading.Event()
    found = []
    with consumer_of(
        broker, topic, new_group(), max_poll_interval_ms=3_000, config=QUICK | {"session.timeout.ms": 2_000}
    ) as consumer:
        for event in islice(consumer, 10):
            found.append(number_of(event))
            pause.wait(0.45)

    assert found == list(range(10))
    assert "max_poll_interval_ms" not in caplog.text


def test_an_event_that_takes_longer_than_the_interval_is_delivered_again_and_it_is_said_why(
    broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")
    group = new_group()
    found = []
    with consumer_of(
        broker, topic, group, max_poll_interval_ms=1_500, config={"session.timeout.ms": 1_000}
    ) as consumer:
        for event in consumer:
            found.append(number_of(event))
            if len(found) == 1:
                threading.Event().wait(2.5)  # only the next poll would tell that the time is up
            if found.count(0) == 2 and found[-1] == 1:
                break
        consumer.commit()

    assert found in ([0, 0, 1], [0, 1, 0, 1])
    assert "raise max_poll_interval_ms" in caplog.text
    assert committed(broker, topic, group) == 2
