"""Have processes killed with SIGKILL, one after another: ``killed JOB``, a :class:`Job` in JSON.

This one has no threads and no connections: it forks the processes that work and die, which saves the time
that importing takes. Prints a line once the last is dead; appenders then go on alive until the input ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from random import Random
from typing import Any, Literal

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.errors import OutboxUnavailableError
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox import relay as relays
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event
from tests.waiting import await_condition

#: An appender dies right before it appends, or with an event accepted that nobody knows of yet.
APPENDERS_STEPS = ("before append", "after append")
RELAYS_STEPS = ("after claim", "after produce", "after report", "after settle")
#: Or the parent kills it, whatever it is doing.
AT_RANDOM = "at random"

_LEASE_SECONDS = 2.0
# Shorter, as in earnest: what is under way must be given up before others may have it.
_DELIVERY_SECONDS = 1.0
_BATCH = 10
_KEYS = 20
#: Appenders wait while so many events do, so that relays are killed at work and not at a growing backlog.
_MOST_WAITING = 300
_ROOM_IS_LOOKED_FOR_EVERY = 25
_IDLE_SECONDS = 0.02
_PATIENCE_SECONDS = 90
#: The moments of random kills, from when a process begins: long enough for some rounds of its work.
_APPENDERS_WINDOW_SECONDS = 0.1
_RELAYS_WINDOW_SECONDS = 1.0
_LATEST_OCCURRENCE = 3


@dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        role: append, or relay.
        name: of this parent; its appenders' ordering keys begin with it.
        url: the outbox's.
        servers: the brokers.
        topic: where to.
        notes: the file in which appenders note what was accepted: ordering key and event id, a line each.
        seed: of the random moments.
        deaths: a step or ``AT_RANDOM`` for each process.
    """

    role: Literal["append", "relay"]
    name: str
    url: str
    servers: str
    topic: str
    notes: str
    seed: int
    deaths: list[str]

    def to_json(self) -> str:
        """Return it as an argument."""
        return json.dumps(asdict(self))


class Dying:
    """Kills this process at the so-manieth call of a function, before or after it."""

    def __init__(self, occurrence: int) -> None:
        self._left = occurrence

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._come_closer()
            return function(*arguments, **options)

        return call

    def after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            done = function(*arguments, **options)
            if done != []:  # claiming nothing is no step
                self._come_closer()
            return done

        return call

    def _come_closer(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def append(job: Job, generation: int, death: str, dying: Dying, begun: Callable[[], object]) -> None:
    """Append as fast as it goes while there is room, until killed or the input ends."""
    outbox = Outbox(OutboxDatabase(job.url))
    notes = os.open(job.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    accept: Callable[..., Any] = outbox.append
    if death == "before append":
        accept = dying.before(accept)
    elif death == "after append":
        accept = dying.after(accept)

    def has_room() -> bool:
        try:
            return outbox.totals().pending < _MOST_WAITING or ends()
        except OutboxUnavailableError:  # locked, on a busy machine
            return False

    def ends() -> bool:
        return death == "" and bool(select.select([sys.stdin], [], [], 0)[0])

    begun()
    for number in count():
        if number % _ROOM_IS_LOOKED_FOR_EVERY == 0:
            await_condition(has_room, timeout_seconds=_PATIENCE_SECONDS, what="room in the outbox")
            if ends():
                break
        event = make_event(
            workflow_run_id=f"{job.name}{number % _KEYS}", event_id=f"{job.name}-{generation:04}-{number:05}"
        )
        with suppress(OutboxUnavailableError):  # not accepted, and so not noted
            accept(event)
            os.write(notes, f"{event.ordering_key} {event.event_id}\n".encode())


def relay(job: Job, death: str, dying: Dying, begun: Callable[[], object]) -> None:
    """Relay until killed."""
    relays._LEASE_SECONDS = _LEASE_SECONDS  # so that the test need not wait for a minute each time
    outbox = Outbox(OutboxDatabase(job.url))
    producer = WorkflowEventProducer(job.servers, topic=job.topic, config=RELAY_OPTIONS)
    if death == "after claim":
        outbox.claim = dying.after(outbox.claim)  # type: ignore[method-assign]
    elif death == "after produce":
        producer._client.wait = dying.before(producer._client.wait)  # type: ignore[method-assign]
    elif death == "after report":
        outbox.settle = dying.before(outbox.settle)  # type: ignore[method-assign]
    elif death == "after settle":
        outbox.settle = dying.after(outbox.settle)  # type: ignore[method-assign]
    working = Relay(
        outbox,
        lambda _conn_id: ProducerDestination(producer),
        delivery_seconds=_DELIVERY_SECONDS,
        batch=_BATCH,
    )
    begun()
    while True:
        with suppress(OutboxUnavailableError):  # locked, on a busy machine
            working.drain()
        threading.Event().wait(_IDLE_SECONDS)


def kill_one(job: Job, generation: int, death: str, random: Random) -> None:
    """Fork one, and see it killed."""
    occurrence = random.randint(1, _LATEST_OCCURRENCE)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(_PATIENCE_SECONDS + 10)  # one that hangs is ended by it, and not by SIGKILL
        try:
            arguments = (death, Dying(occurrence), lambda: os.write(writing, b"."))
            append(job, generation, *arguments) if job.role == "append" else relay(job, *arguments)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    if death == AT_RANDOM:
        window = _APPENDERS_WINDOW_SECONDS if job.role == "append" else _RELAYS_WINDOW_SECONDS
        threading.Event().wait(random.uniform(0, window))
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != -signal.SIGKILL:
        sys.exit(f"{job.name}: number {generation}, to be killed {death}, ended with {code}")


if __name__ == "__main__":
    job = Job(**json.loads(sys.argv[1]))
    random = Random(job.seed)
    for generation, death in enumerate(job.deaths):
        kill_one(job, generation, death, random)
    print("done", flush=True)
    if job.role == "append":
        append(job, len(job.deaths), "", Dying(0), lambda: None)
