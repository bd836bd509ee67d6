"""Consume while signals raise at any moment: ``interrupted_consumer SERVERS TOPIC COUNT``.

A consumer that was interrupted while it read refuses to go on, and the next one of its group begins with what
was cut off. Prints the number of interruptions; ends with 0 if every event was handled.
"""

from __future__ import annotations

import random
import signal
import sys
import time

from airflow_workflow_events import ConsumerClosedError, WorkflowEventConsumer

_INTERRUPTIONS = 12


class InterruptedBySignal(BaseException):
    """What the signal handler raises."""


def interrupt(_number: int, _frame: object) -> None:
    """Raise wherever the main thread happens to be."""
    raise InterruptedBySignal


def read(servers: str, topic: str, count: int) -> int:
    """Read until every number was handled; return how often a signal cut in."""
    handled: set[int] = set()
    interrupted = 0
    while len(handled) < count:
        consumer = WorkflowEventConsumer(
            servers, "interrupted", topic=topic, start_from="earliest", consumer_timeout_ms=10_000
        )
        try:
            while len(handled) < count:
                try:
                    if interrupted < _INTERRUPTIONS:
                        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.4))
                    for event in consumer:
                        time.sleep(0.001)
                        handled.add(event.payload.data["number"])
                        if len(handled) == count:
                            break
                    else:
                        return interrupted if len(handled) == count else -1
                except InterruptedBySignal:
                    interrupted += 1
                    in_hand = consumer._in_hand
                    if in_hand is not None and in_hand.event is not None:
                        # Handed out, and counted as handled once the next one is asked for.
                        handled.add(in_hand.event.payload.data["number"])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except ConsumerClosedError:
            pass
        except InterruptedBySignal:
            interrupted += 1
        finally:
            consumer.close()
    return interrupted


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, interrupt)
    found = read(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(found)
    sys.exit(found < 0)
