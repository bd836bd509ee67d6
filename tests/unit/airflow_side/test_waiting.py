"""All who wait in a process share a consumer for each connection and topic, whichever loop they are on."""

# ruff: noqa: TID253 - what waits runs on an event loop

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import WorkflowEventConsumer, waiting
from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Progress
from airflow_workflow_events.waiting import EventStream
from tests.broker import Broker
from tests.contract.consuming import number_of, numbers, publish
from tests.unit.airflow_side.connections import DEFAULT, Connections
from tests.unit.airflow_side.processes import run_program
from tests.waiting import await_condition

pytestmark = pytest.mark.usefixtures("fresh_hubs")

_SECONDS = 20
_MANY = 1_000


def stream_of(
    workflow_id: str | None = None,
    *,
    conn_id: str = DEFAULT,
    topic: str | None = None,
    start: Any = StartFrom.EARLIEST,
    wants_progress: bool = False,
) -> EventStream:
    """A stream of the events of a workflow, or of all."""
    return EventStream(
        conn_id, topic, [EventFilter(workflow_id=workflow_id)], start, wants_progress=wants_progress
    )


async def take(stream: EventStream, count: int) -> list[ReceivedEvent]:
    """The next events."""
    found = []
    async with asyncio.timeout(_SECONDS):
        async for delivery in stream:
            if isinstance(delivery, ReceivedEvent):
                found.append(delivery)
                if len(found) == count:
                    break
    return found


async def first_of(stream: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(_SECONDS):
        return await anext(stream)


async def wait_for(condition: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(await_condition, condition, timeout_seconds=_SECONDS, what=what)


def clients() -> int:
    """How many clients of librdkafka this process has: each has one thread of this name."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:  # it has ended
            continue
    return names.count("rdk:main")


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[WorkflowEventConsumer]:
    """The consumers that were made."""
    made: list[WorkflowEventConsumer] = []
    get_consumer = WorkflowEventHook.get_consumer

    def get_noted(self: WorkflowEventHook, **options: Any) -> WorkflowEventConsumer:
        made.append(get_consumer(self, **options))
        return made[-1]

    monkeypatch.setattr(WorkflowEventHook, "get_consumer", get_noted)
    return made


async def test_what_was_there_and_what_comes_is_handed_out(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    publish(embedded_broker, event_topic, range(3))
    async with stream_of() as stream:
        found = await take(stream, 3)
        await asyncio.to_thread(publish, embedded_broker, event_topic, range(3, 6))
        found += await take(stream, 3)

    assert numbers(one.event for one in found) == [0, 1, 2, 3, 4, 5]


async def test_a_thousand_streams_share_one_consumer(
    connection: str, embedded_broker: Broker, event_topic: str, consumers: list[WorkflowEventConsumer]
) -> None:
    before = clients()
    streams = [stream_of(f"workflow_{number}") for number in range(_MANY)]
    for stream in streams:
        await stream.__aenter__()
    for number in (0, 1, _MANY - 1):
        publish(embedded_broker, event_topic, [number], workflow_id=f"workflow_{number}")
    found = [(await take(streams[number], 1))[0] for number in (0, 1, _MANY - 1)]

    assert [number_of(one.event) for one in found] == [0, 1, _MANY - 1]
    assert clients() - before <= 2  # the consumer, and the client that it asks for topics' ids
    assert (len(consumers), len(waiting._hubs)) == (1, 1)
    [hub] = waiting._hubs.values()
    assert len(hub) == _MANY
    for stream in streams:
        await stream.__aexit__(None, None, None)
    assert len(hub) == 0


async def test_each_connection_and_topic_has_a_consumer_of_its_own(
    connection: str,
    connections: Connections,
    embedded_broker: Broker,
    event_topic: str,
    consumers: list[WorkflowEventConsumer],
) -> None:
    other = f"events-{uuid.uuid4()}"
    embedded_broker.create_topic(other)
    connections.add(
        "second", extra={"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": event_topic}
    )
    publish(embedded_broker, event_topic, [1])
    publish(embedded_broker, other, [2])

    async with stream_of() as one, stream_of(topic=other) as two, stream_of(conn_id="second") as three:
        found = [(await take(stream, 1))[0] for stream in (one, two, three)]

    assert [number_of(received.event) for received in found] == [1, 2, 1]
    assert len(consumers) == 3


async def test_whoever_waits_is_told_how_far_they_have_got_if_they_want(
    connection: str, event_topic: str
) -> None:
    async with stream_of(wants_progress=True, start=StartFrom.LATEST) as stream:
        first = await first_of(aiter(stream))

    assert first == Progress({(event_topic, partition): 0 for partition in range(4)})


async def test_after_its_consumer_was_closed_another_is_opened(
    connection: str, embedded_broker: Broker, event_topic: str, consumers: list[WorkflowEventConsumer]
) -> None:
    publish(embedded_broker, event_topic, [0])
    async with stream_of() as stream:
        await take(stream, 1)
    [hub] = waiting._hubs.values()
    hub.close()

    async with stream_of() as stream:
        assert len(await take(stream, 1)) == 1

    assert len(consumers) == 2
    assert hub not in waiting._hubs.values()


async def test_closed_consumers_are_forgotten_when_another_is_opened(
    connection: str, embedded_broker: Broker
) -> None:
    topics = [f"events-{uuid.uuid4()}" for _ in range(3)]
    for topic in topics:
        embedded_broker.create_topic(topic)
        async with stream_of(topic=topic):
            pass
        for hub in waiting._hubs.values():
            hub.close()

    assert list(waiting._hubs) == [(DEFAULT, topics[-1])]


async def test_an_unknown_connection_is_an_error_for_each_who_waits() -> None:
    for _ in range(2):
        async with stream_of(conn_id="nowhere") as stream:
            with pytest.raises(ConfigurationError, match="connection 'nowhere'"):
                await take(stream, 1)


async def test_a_connection_that_was_put_right_serves_the_next(
    connections: Connections, embedded_broker: Broker, event_topic: str
) -> None:
    connections.add(extra={"topic": event_topic})
    async with stream_of() as stream:
        with pytest.raises(ConfigurationError, match="names no broker"):
            await take(stream, 1)
    connections.add(extra={"topic": event_topic, "bootstrap.servers": embedded_broker.bootstrap_servers})
    publish(embedded_broker, event_topic, [0])

    async with stream_of() as stream:
        assert len(await take(stream, 1)) == 1


def test_a_stream_whose_loop_was_closed_is_unsubscribed(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    async def enter() -> EventStream:
        return await stream_of().__aenter__()

    forgotten = asyncio.run(enter())
    [hub] = waiting._hubs.values()
    assert len(hub) == 1
    publish(embedded_broker, event_topic, [0])

    await_condition(lambda: len(hub) == 0, timeout_seconds=_SECONDS, what="it to be unsubscribed")
    assert forgotten._hub is hub


async def test_who_leaves_early_is_unsubscribed_also_when_cancelled(connection: str) -> None:
    async def wait_on() -> None:
        async with stream_of() as stream:
            await take(stream, 1)

    task = asyncio.ensure_future(wait_on())
    await wait_for(lambda: any(map(len, waiting._hubs.values())), "it to wait")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [len(hub) for hub in waiting._hubs.values()] == [0]


def test_leaving_a_stream_that_was_never_entered_does_nothing() -> None:
    async def leave() -> None:
        await stream_of().__aexit__(None, None, None)

    asyncio.run(leave())


_FORKING = """
import asyncio, os, sys
from airflow_workflow_events import waiting
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.positions import StartFrom

async def take():
    filters = [EventFilter()]
    async with asyncio.timeout(30):
        stream = waiting.EventStream("workflow_events_default", None, filters, StartFrom.EARLIEST)
        async with stream:
            async for received in stream:
                return received.event.workflow_run_id

assert asyncio.run(take()) == "run_7"
waiting._lock.acquire()  # as another thread may hold it at this moment
pid = os.fork()
if pid == 0:
    assert not waiting._hubs
    assert asyncio.run(take()) == "run_7"
    os._exit(7)
waiting._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert asyncio.run(take()) == "run_7"
assert len(waiting._hubs) == 1
print("both have found it")
"""


def test_parent_and_child_of_a_fork_each_have_a_consumer(embedded_broker: Broker, event_topic: str) -> None:
    publish(embedded_broker, event_topic, [7])
    extra = {"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": event_topic}
    environment = {
        f"AIRFLOW_CONN_{DEFAULT.upper()}": json.dumps({"conn_type": "workflow_events", "extra": extra})
    }

    assert run_program(_FORKING, environment).splitlines()[-1] == "both have found it"
