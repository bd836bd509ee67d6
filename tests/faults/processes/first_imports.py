"""Which modules do threads import that a fork can cut through: ``first_imports FOLDER``.

The relay delivers through connections of several kinds of trouble, a hub waits through some of them, and a
schema registry is used. Prints the modules that a thread other than the main one was the first to import
outside a critical section.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from tests.airflow_home import AIRFLOW_HOME

# isort: split
from airflow_workflow_events import EmbeddedBroker, forks, listeners, waiting
from airflow_workflow_events.errors import WorkflowEventsError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.registry import RegistryValueSerializer
from airflow_workflow_events.kafka.subscriptions import Subscription
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.entries import Route
from tests.events import make_event
from tests.waiting import await_condition

_PATIENCE_SECONDS = 60.0
_SASL = {"sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}


class Importing:
    """Notes which modules other threads import first, and whether a fork waits for it."""

    def __init__(self) -> None:
        self._main = threading.get_ident()
        self.unguarded: dict[str, None] = {}

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        me = threading.get_ident()
        if me != self._main and me not in forks._forks._sections:
            self.unguarded[name] = None


def connections(servers: str) -> dict[str, dict[str, str]]:
    """Connections by name: one that works, and those that do not, each for another reason."""
    here = {"bootstrap.servers": servers.replace("127.0.0.1", "localhost")}
    return {
        "workflow_events_default": here,
        "tls": {**here, "security.protocol": "SSL"},
        "login": {**here, **_SASL, "security.protocol": "SASL_PLAINTEXT"},
        "tls_login": {**here, **_SASL, "security.protocol": "SASL_SSL"},
    }


def relay_through(names: list[str]) -> None:
    """Have the listener's relay attempt a delivery through each connection."""
    relay = listeners._start_relay()
    for name in names:
        relay.accept(make_event(event_id=name), Route(name, None))
    relay.accept(make_event(event_id="no connection"), Route("missing", None))
    outbox = relay._outbox
    await_condition(
        lambda: (
            outbox.totals().pending + outbox.totals().parked == len(names)  # one was delivered
            and set(names) - {"workflow_events_default"} <= set(troubled(relay))
        ),
        timeout_seconds=_PATIENCE_SECONDS,
        what="an attempt through each connection",
    )
    relay.stop(5)


def troubled(relay: BackgroundRelay) -> Iterator[str]:
    """The connections that the relay has attempted in vain."""
    for route in relay._outbox.routes():
        if relay._relay.is_in_trouble(route) and route.conn_id:
            yield route.conn_id


def wait_through(name: str) -> None:
    """Wait through a connection until something is told, be it an error."""
    hub = waiting._open_hub(name, None)
    told = threading.Event()
    hub.subscribe(Subscription([EventFilter()], StartFrom.EARLIEST, lambda _deliveries: told.set()))
    await_condition(
        lambda: told.is_set() or hub.trouble() is not None,
        timeout_seconds=_PATIENCE_SECONDS,
        what="an answer through the connection",
    )
    hub.close()


@contextmanager
def noted() -> Iterator[Importing]:
    importing = Importing()
    sys.meta_path.insert(0, importing)
    try:
        yield importing
    finally:
        sys.meta_path.remove(importing)


def use_registry() -> None:
    with suppress(WorkflowEventsError):
        RegistryValueSerializer({"url": "http://localhost:1", "max.retries": 0}).register("t")


def main(folder: str) -> None:
    """Do all of it, and print."""
    with EmbeddedBroker(topics={"t": 1}) as broker:
        os.environ["AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL"] = f"sqlite:///{folder}/outbox.db"
        os.environ["AIRFLOW__WORKFLOW_EVENTS__LISTENER"] = "True"
        found = connections(broker.bootstrap_servers)
        for name, options in found.items():
            stored = {"conn_type": "workflow_events", "extra": {**options, "topic": "t"}}
            os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(stored)
        with noted() as importing:
            relay_through(list(found))
            for name in ("tls", "tls_login"):
                wait_through(name)
            with ThreadPoolExecutor(1) as threads:
                threads.submit(use_registry).result()
        print(f"unguarded: {list(importing.unguarded)}", flush=True)


if __name__ == "__main__":
    assert AIRFLOW_HOME.is_dir()
    main(sys.argv[1])
