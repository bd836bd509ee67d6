"""Relay until killed at one step: ``killed_relay URL SERVERS TOPIC claimed|produced|reported|settled``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox import relay as relays
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox

_LEASE_SECONDS = 2.0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if after:
            function(*arguments, **options)
        _die()

    return call


if __name__ == "__main__":
    url, servers, topic, step = sys.argv[1:]
    relays._LEASE_SECONDS = _LEASE_SECONDS  # so that the test need not wait for a minute
    outbox = Outbox(OutboxDatabase(url))
    producer = WorkflowEventProducer(servers, topic=topic, config=RELAY_OPTIONS)
    relay = Relay(outbox, lambda _conn_id: ProducerDestination(producer), batch=30)
    if step == "claimed":
        outbox.claim = _dying(outbox.claim, after=True)  # type: ignore[method-assign]
    elif step == "produced":
        producer._client.wait = _dying(producer._client.wait, after=False)  # type: ignore[method-assign]
    elif step == "reported":
        outbox.settle = _dying(outbox.settle, after=False)  # type: ignore[method-assign]
    else:
        outbox.settle = _dying(outbox.settle, after=True)  # type: ignore[method-assign]
    relay.drain()
