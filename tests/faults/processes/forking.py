"""Fork while a producer and a relay's thread are busy: ``forking URL SERVERS TOPIC FOLDER CHILDREN COUNT``.

Parent and children each accept COUNT events at least for a relay of their own, and publish as many with the
producer that the parent made. FOLDER gets a file of each that names what was accepted or confirmed: ordering
key and event id, a line each. Ends with 0 where everybody's work was done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event

_KEYS = 5
_PATIENCE_SECONDS = 60
_PAUSE_SECONDS = 0.002


class Worker:
    """Accepts events for a relay, and publishes others; from one thread each."""

    def __init__(
        self, name: str, folder: Path, relay: BackgroundRelay, producer: WorkflowEventProducer
    ) -> None:
        self._name = name
        self._folder = folder
        self._relay = relay
        self._producer = producer
        self.failed = False

    def accept(self, enough: Callable[[int], bool]) -> None:
        """Accept events until ``enough`` says so of their number."""
        self._emit(
            "accepted",
            enough,
            lambda event: self._relay.accept(event, DEFAULT_ROUTE, environment_is_default=True),
        )

    def publish(self, enough: Callable[[int], bool]) -> None:
        """Publish events until ``enough`` says so of their number."""
        self._emit(
            "published", enough, lambda event: self._producer.publish_event(event, timeout=_PATIENCE_SECONDS)
        )

    def _emit(self, what: str, enough: Callable[[int], bool], emit: Callable[[WorkflowEvent], bool]) -> None:
        pause = threading.Event()
        with (self._folder / f"{self._name}-{what}").open("a") as notes:
            for number in count():
                if enough(number):
                    break
                event = make_event(
                    workflow_run_id=f"{self._name}-{what}{number % _KEYS}",
                    event_id=f"{self._name}-{what}-{number:06}",
                )
                if emit(event):
                    notes.write(f"{event.ordering_key} {event.event_id}\n")
                else:
                    self.failed = True
                pause.wait(_PAUSE_SECONDS)


class Making:
    """What the parent makes, and what children make of it."""

    def __init__(self, url: str, servers: str, topic: str, folder: Path, of_each: int) -> None:
        self._outbox = Outbox(OutboxDatabase(url))
        self._servers = servers
        self._topic = topic
        self._folder = folder
        self._of_each = of_each
        self._producer = WorkflowEventProducer(servers, topic=topic)

    def be_the_parent(self, children: int) -> bool:
        """Fork while other threads accept and publish; return whether everything worked."""
        relay, stop = self._start_relay(), threading.Event()
        worker = Worker("parent", self._folder, relay, self._producer)

        def enough(number: int) -> bool:
            return stop.is_set() and number >= self._of_each

        threads = [threading.Thread(target=work, args=(enough,)) for work in (worker.accept, worker.publish)]
        for thread in threads:
            thread.start()
        codes: list[int] = []
        for first in range(0, children, 2):
            pids = [self._fork(f"child{number}") for number in range(first, min(first + 2, children))]
            codes += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        stop.set()
        for thread in threads:
            thread.join()
        if any(codes):
            print(f"children ended with {codes}", file=sys.stderr)
        return not any(codes) and not worker.failed and self._deliver(relay)

    def _be_a_child(self, name: str) -> bool:
        relay = self._start_relay()
        worker = Worker(name, self._folder, relay, self._producer)
        publishing = threading.Thread(target=worker.publish, args=(self._of_each.__le__,))
        publishing.start()
        worker.accept(self._of_each.__le__)
        publishing.join()
        return not worker.failed and self._deliver(relay)

    def _fork(self, name: str) -> int:
        pid = os.fork()
        if pid == 0:
            signal.alarm(_PATIENCE_SECONDS)  # a child that hangs is ended by it
            code = 1
            try:
                code = int(not self._be_a_child(name))
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        return pid

    def _start_relay(self) -> BackgroundRelay:
        def open_destination(_conn_id: str | None) -> ProducerDestination:
            return ProducerDestination(
                WorkflowEventProducer(self._servers, topic=self._topic, connect=False, config=RELAY_OPTIONS)
            )

        relay = BackgroundRelay(self._outbox, Relay(self._outbox, open_destination))
        relay.start()
        return relay

    def _deliver(self, relay: BackgroundRelay) -> bool:
        return relay.stop(_PATIENCE_SECONDS) and self._producer.close()


if __name__ == "__main__":
    url, servers, topic, folder, children, of_each = sys.argv[1:]
    making = Making(url, servers, topic, Path(folder), int(of_each))
    sys.exit(not making.be_the_parent(int(children)))
