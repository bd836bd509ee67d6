"""Doing something where a producer takes a delivery report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue

from airflow_workflow_events import WorkflowEventProducer
from tests.events import make_event

_CALL_SECONDS = 20


def in_a_delivery_callback(producer: WorkflowEventProducer, act: Callable[[], object]) -> int:
    """Have ``act`` called once in a future's callback by the producer; return how many events that took.

    A future that is done before it is given the callback calls it at once, where it is given: that is no
    delivery callback, so another event is sent.
    """
    giving = threading.current_thread()
    by_producer: Queue[bool] = Queue()

    def callback(_future: object) -> None:
        is_by_producer = threading.current_thread() is not giving
        try:
            if is_by_producer:
                act()
        finally:
            by_producer.put(is_by_producer)

    sent = 0
    while True:
        producer.send(make_event()).add_done_callback(callback)
        sent += 1
        if by_producer.get(timeout=_CALL_SECONDS):
            return sent
