"""Accept events and end right after: ``ending URL SERVERS TOPIC NOTES NAME COUNT STATE AT_EXIT WAY``.

STATE ``warm``: the relay's thread is in the midst of its work then; ``cold``: it has hardly begun. AT_EXIT
``stopped``: the thread is stopped at exit, as Airflow's is; ``left``: nobody cares for it. NOTES gets the
ordering key and the id of each accepted event, a line each.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox import relay as relays
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event
from tests.waiting import await_condition

_LEASE_SECONDS = 2.5
_KEYS = 10
_BATCH = 10
_STOP_SECONDS = 5.0


def end(way: str) -> None:
    """End in one of the ways; falling off the end is to return."""
    if way == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    elif way == "SIGTERM and its handler":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Airflow's jobs do
        os.kill(os.getpid(), signal.SIGTERM)
    elif way == "SIGINT":
        os.kill(os.getpid(), signal.SIGINT)
    elif way == "os._exit":
        os._exit(0)
    elif way == "sys.exit":
        sys.exit(0)
    elif way == "an error":
        raise RuntimeError("uncaught")


if __name__ == "__main__":
    url, servers, topic, notes, name, count, state, at_exit, way = sys.argv[1:]
    relays._LEASE_SECONDS = _LEASE_SECONDS  # so that the test need not wait for a minute
    outbox = Outbox(OutboxDatabase(url))

    def open_destination(_conn_id: str | None) -> ProducerDestination:
        producer = WorkflowEventProducer(servers, topic=topic, connect=False, config=RELAY_OPTIONS)
        return ProducerDestination(producer)

    # Little at once, so that there is always something under way.
    relay = BackgroundRelay(
        outbox, Relay(outbox, open_destination, delivery_seconds=_LEASE_SECONDS / 2, batch=_BATCH)
    )
    relay.start()
    if at_exit == "stopped":
        atexit.register(relay.stop, _STOP_SECONDS)
    noted = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def accept(number: int) -> None:
        event = make_event(workflow_run_id=f"{name}{number % _KEYS}", event_id=f"{name}-{number:05}")
        if relay.accept(event, DEFAULT_ROUTE, environment_is_default=True):
            os.write(noted, f"{event.ordering_key} {event.event_id}\n".encode())

    if state == "warm":
        accept(0)
        await_condition(lambda: outbox.totals().pending == 0, timeout_seconds=30, what="a first delivery")
    for number in range(1, int(count)):
        accept(number)
    end(way)
