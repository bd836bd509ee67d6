"""A member of a group that notes what it handles, until it is killed: ``consuming JOB``."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass

from airflow_workflow_events import WorkflowEventConsumer


@dataclass(frozen=True)
class Job:
    """What a member does.

    Attributes:
        servers: the brokers.
        group: the group.
        topic: the topic.
        dead_letters: the topic for what is no event.
        strategy: how partitions are shared out.
        notes: the file for what was handled, a line each: when, by the machine's clock, the key and the id.
    """

    servers: str
    group: str
    topic: str
    dead_letters: str
    strategy: str
    notes: str

    def to_json(self) -> str:
        """Return it as an argument."""
        return json.dumps(asdict(self))


def work(job: Job) -> None:
    """Handle events for ever."""
    consumer = WorkflowEventConsumer(
        job.servers,
        job.group,
        topic=job.topic,
        dead_letter_topic=job.dead_letters,
        config={
            "partition.assignment.strategy": job.strategy,
            "session.timeout.ms": 1_500,
            "heartbeat.interval.ms": 300,
            "auto.commit.interval.ms": 200,
        },
    )
    notes = os.open(job.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    for event in consumer:
        os.write(notes, f"{time.monotonic_ns()} {event.ordering_key} {event.event_id}\n".encode())


if __name__ == "__main__":
    work(Job(**json.loads(sys.argv[1])))
