"""Fork while events are under way: ``fork_with_pending SERVERS TOPIC COUNT``.

The parent sends COUNT events and forks. The child publishes one event of its own with the inherited producer,
sends another and ends. Both end with 0 where all their events were delivered.
"""

from __future__ import annotations

import os
import sys

from airflow_workflow_events import WorkflowEventProducer
from tests.events import make_event, make_events
from tests.waiting import await_condition

CHILD_SECONDS = 20


def child(producer: WorkflowEventProducer) -> int:
    """Use the inherited producer as if it were one's own."""
    published = producer.publish_event(make_event(workflow_id="child"), timeout=15)
    sent = producer.send(make_event(workflow_id="child")).result(15)
    return 0 if published and sent.delivered and producer.close() else 1


def parent(pid: int) -> int:
    """Wait for the child to end; return its exit code."""

    def ended() -> list[int]:
        found, status = os.waitpid(pid, os.WNOHANG)
        return [status] if found else []

    (status,) = await_condition(ended, timeout_seconds=CHILD_SECONDS, what="the child's end")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    servers, topic, count = sys.argv[1:]
    producer = WorkflowEventProducer(servers, topic=topic, config={"linger.ms": 500})
    futures = [producer.send(event) for event in make_events(int(count), workflow_id="parent")]
    pid = os.fork()
    if pid == 0:
        sys.exit(child(producer))  # and through the interpreter's whole shutdown
    code = parent(pid)
    delivered = all(future.result(30).delivered for future in futures)
    sys.exit(code or not (delivered and producer.close()))
