"""Signals, races and forks: whatever cuts in, nobody hangs and the producer goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from airflow_workflow_events import (
    EmbeddedBroker,
    EventSerializationError,
    KafkaTimeoutError,
    ProducerClosedError,
    WorkflowEventProducer,
)
from airflow_workflow_events.kafka.pending import PendingEvent
from tests.broker import Broker
from tests.contract.delivery_callbacks import in_a_delivery_callback
from tests.events import make_event, make_events
from tests.waiting import await_condition


@pytest.mark.parametrize("threads", ["alone", "shared"])
def test_a_producer_works_on_after_signals_that_raise_at_any_moment(threads: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.processes.interrupted", threads],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_is_sent_while_the_producer_closes_is_refused_or_reported(embedded_producers: str) -> None:
    for _ in range(60):
        producer = WorkflowEventProducer(embedded_producers)
        event = make_event(payload={"data": {"texts": ["x" * 40] * 400}})
        start = threading.Barrier(2)

        def send(
            producer: WorkflowEventProducer = producer,
            start: threading.Barrier = start,
            event: object = event,
        ) -> bool:
            start.wait()
            try:
                return producer.send(event).result(timeout=10) is not None  # type: ignore[arg-type]
            except ProducerClosedError:
                return True

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(send)
            start.wait()
            producer.close()
            assert answer.result(timeout=20)


def test_a_signal_handler_can_give_up_what_is_under_way() -> None:
    with EmbeddedBroker() as broker:
        producer = WorkflowEventProducer(broker.bootstrap_servers)
        assert producer.publish_event(make_event())
        broker.set_round_trip_ms(60_000)
        # Not SIGALRM: its one timer is what ends a test that takes too long.
        before = signal.signal(signal.SIGUSR1, lambda *_: producer.abandon())
        interrupt = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
        try:
            interrupt.start()
            started = time.monotonic()
            assert producer.publish_event(make_event(), timeout=30) is False
            assert time.monotonic() - started < 20
        finally:
            interrupt.join()
            signal.signal(signal.SIGUSR1, before)
            broker.set_round_trip_ms(0)
        assert await_condition(
            lambda: producer.publish_event(make_event(), timeout=30), timeout_seconds=60, what="a delivery"
        )
        producer.close(timeout=10)


def test_a_raising_callback_does_not_end_the_reporting_thread(embedded_producers: str) -> None:
    producer = WorkflowEventProducer(embedded_producers)

    def leave() -> None:
        raise SystemExit

    in_a_delivery_callback(producer, leave)
    assert producer.send(make_event()).result(timeout=20).delivered
    producer.close()


def test_a_raising_statistics_callback_does_not_reach_the_caller(
    embedded_producers: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_statistics: str) -> None:
        raise ValueError("no dashboard")

    config = {"stats_cb": fail, "statistics.interval.ms": 10}
    with WorkflowEventProducer(embedded_producers, config=config) as producer:
        await_condition(
            lambda: producer.publish_event(make_event()) and "no dashboard" in caplog.text,
            timeout_seconds=20,
            what="the statistics callback to be called",
        )


def _send_and_return(servers: str, topic: str) -> None:
    producer = WorkflowEventProducer(servers, topic=topic, config={"linger.ms": 300})
    for event in make_events(20):
        producer.send(event)


def test_a_child_of_multiprocessing_that_ends_right_after_sending_delivers(embedded_broker: Broker) -> None:
    topic = f"events-{uuid4()}"
    embedded_broker.create_topic(topic)
    child = multiprocessing.get_context("fork").Process(
        target=_send_and_return, args=(embedded_broker.bootstrap_servers, topic), daemon=True
    )
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert len(embedded_broker.messages(topic, 20)) == 20


@pytest.fixture
def embedded_producers() -> Iterator[str]:
    """Addresses of an embedded broker."""
    with EmbeddedBroker() as broker:
        yield broker.bootstrap_servers


def test_a_child_forked_while_threads_build_their_first_events_publishes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.processes.fork_at_first_events"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_event_whose_report_is_lost_has_an_unknown_outcome_and_holds_up_nobody(
    embedded_producers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = WorkflowEventProducer(embedded_producers)

    class Cut(BaseException):
        """What a signal handler raises."""

    lose = iter([True])

    def cut_in(self: PendingEvent, error: object, message: object) -> None:
        if next(lose, False):
            raise Cut
        original(self, error, message)

    original = PendingEvent.__call__
    monkeypatch.setattr(PendingEvent, "__call__", cut_in)
    lost = producer.send(make_event())
    report = lost.result(timeout=20)
    assert isinstance(report.error, KafkaTimeoutError)
    assert producer.publish_event(make_event())
    producer.flush(timeout=10)
    assert producer.close(timeout=10)


def test_events_sent_before_a_signal_cuts_into_a_batch_are_delivered(embedded_broker: Broker) -> None:
    topic = f"events-{uuid4()}"
    embedded_broker.create_topic(topic)

    class Cut(BaseException):
        """What a signal handler raises."""

    class Cutting(WorkflowEventProducer):
        def _encoded(self, batch: list[Any], start: int, pending: Any) -> list[Any]:
            if start:
                raise Cut
            return super()._encoded(batch, start, pending)

    producer = Cutting(embedded_broker.bootstrap_servers, topic=topic, config={"linger.ms": 300})
    with pytest.raises(Cut):
        producer.publish_events(make_events(300))
    producer.flush(timeout=20)
    assert len(embedded_broker.messages(topic, 200)) == 200
    assert producer.close(timeout=10)


def test_a_batch_with_an_event_copied_into_nonsense_reports_it_and_delivers_the_others(
    embedded_producers: str,
) -> None:
    broken = make_event().model_copy(update={"metadata": {"environment": "test"}})
    with WorkflowEventProducer(embedded_producers) as producer:
        first, second, third = producer.publish_events([make_event(), broken, make_event()], timeout=20)
    assert (first.delivered, third.delivered) == (True, True)
    assert isinstance(second.error, EventSerializationError)
