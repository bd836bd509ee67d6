"""Accept events as Airflow's processes do, with a relay's thread: ``accepting URL SERVERS TOPIC NAME COUNT``.

Says ``ready``, begins once told to by a line, says in JSON what it accepted, and ends when its input does.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from time import perf_counter

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event

_KEYS = 20
_PAUSE_SECONDS = 0.005
_STOP_SECONDS = 60

if __name__ == "__main__":
    url, servers, topic, name, count = sys.argv[1:]
    outbox = Outbox(OutboxDatabase(url))

    def open_destination(_conn_id: str | None) -> ProducerDestination:
        producer = WorkflowEventProducer(
            servers, topic=topic, connect=False, failure_log_level=logging.DEBUG, config=RELAY_OPTIONS
        )
        return ProducerDestination(producer)

    relay = BackgroundRelay(outbox, Relay(outbox, open_destination))
    relay.start()
    pause = threading.Event()
    print("ready", flush=True)
    sys.stdin.readline()
    accepted: list[tuple[str, str]] = []
    refused: list[str] = []
    longest = 0.0
    for number in range(int(count)):
        event = make_event(workflow_run_id=f"{name}{number % _KEYS}", event_id=f"{name}-{number:05}")
        started = perf_counter()
        taken = relay.accept(event, DEFAULT_ROUTE, environment_is_default=True)
        longest = max(longest, perf_counter() - started)
        if taken:
            accepted.append((event.ordering_key, event.event_id))
        else:
            refused.append(event.event_id)
        pause.wait(_PAUSE_SECONDS)
    print(json.dumps({"accepted": accepted, "refused": refused, "longest_seconds": longest}), flush=True)
    sys.stdin.read()
    sys.exit(not relay.stop(_STOP_SECONDS))
