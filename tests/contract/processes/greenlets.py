"""Greenlets that publish and consume beside one that counts: ``greenlets SERVERS TOPIC``.

Prints what a publish without a broker raised, what was published and consumed, and whether the greenlet
beside them could count meanwhile.
"""

from __future__ import annotations

from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

from airflow_workflow_events import WorkflowEventConsumer, WorkflowEventProducer  # noqa: E402
from airflow_workflow_events.errors import KafkaConnectionError, KafkaTimeoutError  # noqa: E402
from tests.events import make_event, make_events  # noqa: E402

_NOBODY = "127.0.0.1:1"
_GIVE_UP_SECONDS = 60.0
_ticks: list[float] = []


def _count() -> None:
    while True:
        _ticks.append(time.monotonic())
        time.sleep(0.01)


def _counted_during(work: gevent.Greenlet) -> str:
    """Wait for a greenlet; say whether the one beside it ran meanwhile."""
    before = len(_ticks)
    work.join()
    return f"{work.get()} {'beside' if len(_ticks) - before > 10 else 'alone'}"


def _publish_to_nobody() -> str:
    producer = WorkflowEventProducer(_NOBODY, connect=False)
    try:
        producer.publish_event(make_event(), timeout=1)
    except KafkaTimeoutError as error:
        producer.close(timeout=0)
        return type(error).__name__
    return "published"


def _connect_to_nobody() -> str:
    try:
        WorkflowEventProducer(_NOBODY, connect_timeout_ms=1_000)
    except KafkaConnectionError as error:
        return type(error).__name__
    return "connected"


def _publish_and_consume(servers: str, topic: str) -> str:
    with WorkflowEventProducer(servers, topic=topic) as producer:
        reports = producer.publish_events(make_events(5))
        reports += [producer.send(make_event()).result() for _ in range(2)]
        confirmed = producer.publish_event(make_event())
    delivered = sum(report.delivered for report in reports) + confirmed
    with WorkflowEventConsumer(
        servers, None, topic=topic, start_from="earliest", consumer_timeout_ms=1_000
    ) as consumer:
        found = sum(1 for _ in consumer)
    return f"{delivered} {found}"


if __name__ == "__main__":
    servers, topic = sys.argv[1:]
    gevent.spawn(_count)
    with gevent.Timeout(_GIVE_UP_SECONDS):
        print(_counted_during(gevent.spawn(_publish_to_nobody)))
        print(_counted_during(gevent.spawn(_connect_to_nobody)))
        print(_counted_during(gevent.spawn(_publish_and_consume, servers, topic)))
    sys.stdout.flush()
    os._exit(0)
