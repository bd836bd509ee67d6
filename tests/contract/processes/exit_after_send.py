"""Send events and end without waiting: ``exit_after_send SERVERS TOPIC COUNT kept|forgotten``."""

from __future__ import annotations

import sys

from airflow_workflow_events import WorkflowEventProducer
from tests.events import make_events


def send(servers: str, topic: str, count: int) -> WorkflowEventProducer:
    """Send events that stay in the client's queue for a while; the producer is not closed."""
    producer = WorkflowEventProducer(servers, topic=topic, config={"linger.ms": 500})
    for event in make_events(count):
        producer.send(event)
    return producer


if __name__ == "__main__":
    servers, topic, count, fate = sys.argv[1:]
    producer = send(servers, topic, int(count))
    if fate == "forgotten":
        del producer
