"""Relay as one of several: ``shared_relay URL SERVERS TOPIC NAME LEASE_SECONDS BATCH [HALT_AT]``.

Says ``ready``, begins once it is told to by a line, and ends when its input does. Each event carries NAME as
its environment, and so says who delivered it. HALT_AT has it halt once, as if its host were cut off:
``claimed``, ``produced`` or ``reported``, and ``claiming`` or ``settling``: with that transaction still open.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox import relay as relays
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox

_STOP_SECONDS = 30


class Halt:
    """Halts this process at one step, the first time."""

    def __init__(self) -> None:
        self._armed = True

    def __call__(self) -> None:
        if self._armed:
            self._armed = False
            os.kill(os.getpid(), signal.SIGSTOP)

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self()
            return function(*arguments, **options)

        return call

    def after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            done = function(*arguments, **options)
            self()
            return done

        return call

    def in_transaction_of(self, function: Callable[..., Any], database: OutboxDatabase) -> Callable[..., Any]:
        transaction = database.transaction

        @contextmanager
        def halting() -> Iterator[Connection]:
            with transaction() as connection:
                yield connection
                self()

        def call(*arguments: Any, **options: Any) -> Any:
            database.transaction = halting  # type: ignore[method-assign]
            try:
                return function(*arguments, **options)
            finally:
                database.transaction = transaction  # type: ignore[method-assign]

        return call


def halt_at(step: str, outbox: Outbox, producer: WorkflowEventProducer) -> None:
    """Have this process halt at a step."""
    halt, database = Halt(), outbox.database
    if step == "claimed":
        outbox.claim = halt.after(outbox.claim)  # type: ignore[method-assign]
    elif step == "produced":
        producer._client.wait = halt.before(producer._client.wait)  # type: ignore[method-assign]
    elif step == "reported":
        outbox.settle = halt.before(outbox.settle)  # type: ignore[method-assign]
    elif step == "claiming":
        outbox.claim = halt.in_transaction_of(outbox.claim, database)  # type: ignore[method-assign]
    else:
        outbox.settle = halt.in_transaction_of(outbox.settle, database)  # type: ignore[method-assign]


if __name__ == "__main__":
    url, servers, topic, name, lease_seconds, batch, *step = sys.argv[1:]
    relays._LEASE_SECONDS = float(lease_seconds)  # so that the test need not wait for a minute
    outbox = Outbox(OutboxDatabase(url))

    def open_destination(_conn_id: str | None) -> ProducerDestination:
        producer = WorkflowEventProducer(servers, topic=topic, config=RELAY_OPTIONS)
        if step:
            halt_at(step.pop(), outbox, producer)
        return ProducerDestination(producer, environment=name)

    # Less than the lease, as in earnest: what is under way must be given up before others may have it.
    delivery_seconds = 0.75 * float(lease_seconds)
    relay = Relay(outbox, open_destination, delivery_seconds=delivery_seconds, batch=int(batch))
    relay.prepare()
    background = BackgroundRelay(outbox, relay, poll_seconds=0.05)
    print("ready", flush=True)
    if sys.stdin.readline():
        background.start()
        sys.stdin.read()
        sys.exit(not background.stop(_STOP_SECONDS))
