"""Read a large backlog with a slow handler: ``hoarding SERVERS TOPIC COUNT``.

Prints how many events it read, and by how much its memory grew, in KiB.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path

from airflow_workflow_events import WorkflowEventConsumer
from tests.events import make_event


def peak_kib() -> int:
    """Return the most memory this program has had resident, in KiB."""
    # Not getrusage's, which begins with what the process was before it became this program.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    servers, topic, count = sys.argv[1:]
    make_event()
    before = peak_kib()
    with WorkflowEventConsumer(
        servers, topic=topic, start_from="earliest", consumer_timeout_ms=30_000
    ) as consumer:
        read = 0
        for _event in islice(consumer, int(count)):
            read += 1
            time.sleep(0.005)
    print(read, peak_kib() - before, flush=True)
