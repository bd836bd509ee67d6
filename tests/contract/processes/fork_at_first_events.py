"""Fork while other threads build their first events; ends with 0 if the child published one.

A program of its own, because the first event of a process is built only once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from airflow_workflow_events import EmbeddedBroker, WorkflowEventProducer
from tests.events import make_event

_THREADS = 4

if __name__ == "__main__":
    with EmbeddedBroker() as broker:
        producer = WorkflowEventProducer(broker.bootstrap_servers)
        begin = threading.Barrier(_THREADS + 1)

        def publish() -> None:
            begin.wait()
            producer.publish_event(make_event(), timeout=20)

        threads = [threading.Thread(target=publish) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        begin.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that hangs is ended by it
            os._exit(0 if producer.publish_event(make_event(), timeout=20) else 1)
        for thread in threads:
            thread.join()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
