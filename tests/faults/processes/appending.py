"""Append what the input names, a line each: ``appending URL alone|orphaned``; says its pid, then what became.

``orphaned``: it is the child of a process that has used the outbox too, and is gone.
"""

from __future__ import annotations

import os
import sys

from airflow_workflow_events.errors import OutboxUnavailableError
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event

if __name__ == "__main__":
    url, descent = sys.argv[1:]
    outbox = Outbox(OutboxDatabase(url))
    if descent == "orphaned":
        outbox.append(make_event(event_id="parent"))
        if os.fork():
            os._exit(0)
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        try:
            outbox.append(make_event(event_id=line.strip()))
        except OutboxUnavailableError:
            print("refused", flush=True)
        else:
            print("accepted", flush=True)
