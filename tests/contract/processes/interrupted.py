"""Publish while signals raise, as Airflow's task timeout does: ``interrupted alone|shared``.

A program of its own, because such a signal may also come while coverage holds a lock, which it then never
releases.
"""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from airflow_workflow_events import EmbeddedBroker, KafkaTimeoutError, WorkflowEventProducer
from tests.events import make_event, make_events


class InterruptedBySignal(BaseException):
    """What the signal handler raises."""


def interrupt(_number: int, _frame: object) -> None:
    """Raise wherever the main thread happens to be."""
    raise InterruptedBySignal


def publish_until_interrupted(producer: WorkflowEventProducer, times: int) -> None:
    """Publish from the main thread until a signal has cut in so many times."""
    interrupted = 0
    while interrupted < times:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0015)
            for _ in range(1_000):
                # False: the signal came while the client read the event, and what it raised was lost.
                interrupted += not producer.publish_event(make_event(), timeout=20)
        except InterruptedBySignal:
            interrupted += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def alone(servers: str) -> None:
    """The producer works on after signals at any moment."""
    producer = WorkflowEventProducer(servers)
    publish_until_interrupted(producer, 1_500)
    assert producer.publish_event(make_event(), timeout=20)
    assert all(report.delivered for report in producer.publish_events(make_events(50), timeout=20))
    assert producer.close(timeout=20)


def shared(servers: str) -> None:
    """Other threads get their reports while signals cut into the thread that takes them."""
    producer = WorkflowEventProducer(servers)
    stop = threading.Event()

    def publish() -> int:
        unknown = 0
        while not stop.is_set():
            try:
                assert producer.publish_event(make_event(), timeout=3)
            except KafkaTimeoutError:
                unknown += 1  # the signal came while the main thread took this event's report
        return unknown

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(publish) for _ in range(2)]
        try:
            publish_until_interrupted(producer, 300)
        finally:
            stop.set()
        assert all(worker.result(timeout=30) < 100 for worker in workers)
    assert producer.publish_event(make_event(), timeout=20)
    producer.close(timeout=20)


if __name__ == "__main__":
    # The first event builds its validators, and pydantic reports whatever cuts into that as a schema error.
    make_event()
    signal.signal(signal.SIGALRM, interrupt)
    with EmbeddedBroker() as broker:
        {"alone": alone, "shared": shared}[sys.argv[1]](broker.bootstrap_servers)
