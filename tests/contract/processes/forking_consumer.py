"""Fork while a consumer is in use: ``forking_consumer SERVERS TOPIC GROUP DEAD_LETTER_TOPIC``.

The child may not use the consumer, and ends through the interpreter's whole shutdown; the parent goes on.
Ends with 0 if all of it went well.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import islice

from airflow_workflow_events import ConsumerClosedError, WorkflowEventConsumer

if __name__ == "__main__":
    servers, topic, group, dead = sys.argv[1:]
    consumer = WorkflowEventConsumer(
        servers, group, topic=topic, start_from="earliest", dead_letter_topic=dead, consumer_timeout_ms=20_000
    )
    running = iter(consumer)
    before = len(list(islice(running, 2)))
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs is ended by it
        for use in (lambda: next(running), lambda: next(iter(consumer)), consumer.commit):
            try:
                use()
            except ConsumerClosedError as error:
                if "fork" not in str(error):
                    raise
            else:
                sys.exit("the child could use its parent's consumer")
        consumer.close()
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    after = len(list(islice(consumer, 2)))
    consumer.commit()
    consumer.close()
    sys.exit(code or (before, after) != (2, 2))
