"""A hub that reads a topic in memory, one step of a test at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from airflow_workflow_events.errors import KafkaError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.hub import EventHub
from airflow_workflow_events.kafka.intake import Intake, Taken
from airflow_workflow_events.kafka.positions import StartFrom
from tests.events import make_event
from tests.unit.kafka.scripted import TOPIC, Client, Clock, ScriptedIntake, Subscriber, Topic

#: The first partition.
PLACE = (TOPIC, 0)
Step = Callable[[Client], Sequence[Taken] | None]
_EVENT = make_event(workflow_id="orders")


class Stage:
    """A hub in this thread that reads a topic in memory: each time it pulls, the next step is done."""

    def __init__(self, partitions: int = 1) -> None:
        self.topic = Topic(partitions)
        self.clock = Clock()
        self.clients: list[Client] = []
        #: What goes wrong when a client is made, one after the other.
        self.refusals: list[Exception] = []
        #: How many of the next clients find no broker.
        self.hidden = 0
        self.hub = EventHub(self._open, "topic", linger_seconds=1e9)
        self.hub._thread = threading.current_thread()
        self._steps: Iterator[Step] = iter(())

    def subscribe(
        self,
        start: object = StartFrom.EARLIEST,
        *,
        wants_progress: bool = False,
        workflow_id: str | None = None,
    ) -> Subscriber:
        one = Subscriber(start, [EventFilter(workflow_id=workflow_id)], wants_progress)
        self.hub.subscribe(one.subscription)
        return one

    def write(self, count: int = 1, partition: int = 0) -> None:
        for _ in range(count):
            self.topic.write(partition, _EVENT)

    def play(self, *steps: Step) -> None:
        self._steps = iter(steps)
        self.hub._run()

    def _open(self) -> Intake:
        if self.refusals:
            raise self.refusals.pop(0)
        client = Client(self.topic)
        client.is_hidden = self.hidden > 0
        self.hidden -= client.is_hidden
        self.clients.append(client)
        return ScriptedIntake(client, self._pull).as_intake()

    def _pull(self, client: Client) -> Sequence[Taken]:
        step = next(self._steps, None)
        if step is None:
            self.hub.close(wait=False)
            return []
        return step(client) or []


def read(client: Client) -> Sequence[Taken]:
    """A step: read everything that is there."""
    client.discover()
    return [taken for partition in range(len(client.begun)) for taken in client.read(partition, 100)]


def fail(client: Client) -> None:
    """A step: the client fails."""
    raise KafkaError("the client has failed")
