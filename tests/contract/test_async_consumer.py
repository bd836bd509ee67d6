"""The consumer for asyncio keeps the promises of the synchronous one, and never blocks the loop."""

from __future__ import annotations

import asyncio  # noqa: TID253 - what is tested here
import inspect
import os
import signal
import uuid
from pathlib import Path

import pytest

from airflow_workflow_events import (
    AsyncWorkflowEventConsumer,
    ConfigurationError,
    ConsumerClosedError,
    SeenInMemory,
    SeenInSqlite,
    WorkflowEvent,
    WorkflowEventConsumer,
)
from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.events.seen import SeenEvents
from tests.broker import Broker, headers_of
from tests.contract.async_consuming import consumer_of, take
from tests.contract.consuming import (
    IDLE_MS,
    committed,
    new_group,
    number_of,
    numbers,
    publish,
    put,
)


def test_it_has_the_surface_of_the_synchronous_one() -> None:
    public = {name for name in vars(WorkflowEventConsumer) if not name.startswith("_")}

    assert public - {"check_connection"} | {"start"} == {
        name for name in vars(AsyncWorkflowEventConsumer) if not name.startswith("_")
    }
    for name in public - {"check_connection", "poison_count", "repeated_count", "run"}:
        one, other = getattr(WorkflowEventConsumer, name), getattr(AsyncWorkflowEventConsumer, name)
        assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters)


async def test_events_come_out_and_are_committed(broker: Broker, topic: str, maybe_group: str | None) -> None:
    events = publish(broker, topic, range(20))
    async with consumer_of(broker, topic, maybe_group) as consumer:
        assert sorted(await take(consumer, 20), key=number_of) == events

    if maybe_group:
        assert committed(broker, topic, maybe_group) == 20


async def test_an_exception_leaves_the_event_in_hand_for_the_next_time(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(3), workflow_run_id="one")
    group = new_group()

    async def fail() -> None:
        async with consumer_of(broker, topic, group) as consumer:
            async for event in consumer:
                if number_of(event) == 1:
                    raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with consumer_of(broker, topic, group) as consumer:
        assert [number_of(event) for event in await take(consumer, 2)] == [1, 2]
        await consumer.commit()
        assert committed(broker, topic, group) == 3


async def test_a_loop_after_a_break_goes_on(broker: Broker, topic: str, maybe_group: str | None) -> None:
    publish(broker, topic, range(10), workflow_run_id="one")
    async with consumer_of(broker, topic, maybe_group) as consumer:
        first = [number_of(event) for event in await take(consumer, 4)]
        rest = [number_of(event) for event in await take(consumer, 6)]
    assert first + rest == list(range(10))


async def test_stop_ends_it_after_the_event_in_hand(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(5), workflow_run_id="one")
    group = new_group()
    async with consumer_of(broker, topic, group, consumer_timeout_ms=None) as consumer:
        async for event in consumer:
            if number_of(event) == 2:
                consumer.stop()
    assert committed(broker, topic, group) == 3


async def test_run_retries_dead_letters_and_ends_on_a_signal(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(5), workflow_run_id="one")
    group, dead = new_group(), f"events-dead-{uuid.uuid4()}"
    broker.create_topic(dead)
    calls: list[int] = []

    async def handle(event: WorkflowEvent) -> None:
        await asyncio.sleep(0)
        calls.append(number_of(event))
        if calls[-1] == 1:
            raise LookupError("no such order")
        if calls[-1] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    async with consumer_of(broker, topic, group, dead_letter_topic=dead) as consumer:
        assert await consumer.run(handle, max_retries=1, retry_backoff_ms=1) in {3, 4}

    assert calls[:5] == [0, 1, 1, 2, 3]
    (letter,) = broker.messages(dead, 1)
    assert headers_of(letter)["dead_letter_error"] == b"LookupError"
    assert committed(broker, topic, group) == len(set(calls))


async def test_a_failing_handler_without_dead_letters_raises_and_keeps_its_event(
    broker: Broker, topic: str
) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")

    async def fail(_event: WorkflowEvent) -> None:
        raise LookupError("no such order")

    async with consumer_of(broker, topic) as consumer:
        with pytest.raises(LookupError):
            await consumer.run(fail, max_retries=0)
        assert [number_of(event) for event in await take(consumer, 2)] == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_signal_handlers_are_as_before(broker: Broker, topic: str, number: signal.Signals) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    before = signal.getsignal(number)

    async def handle(_event: WorkflowEvent) -> None:
        os.kill(os.getpid(), number)

    try:
        signal.signal(number, mine := lambda *_: None)
        publish(broker, topic, [0])
        async with consumer_of(broker, topic, consumer_timeout_ms=None) as consumer:
            assert await consumer.run(handle) == 1
        assert signal.getsignal(number) is mine

        loop.add_signal_handler(number, heard.set)
        async with consumer_of(broker, topic, consumer_timeout_ms=None) as consumer:
            assert await consumer.run(handle) == 1
        heard.clear()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(heard.wait(), 10)
    finally:
        loop.remove_signal_handler(number)
        signal.signal(number, before)


async def test_a_handler_that_cannot_be_awaited_is_called_once_and_has_handled_nothing(
    broker: Broker, topic: str
) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")
    calls: list[int] = []

    async with consumer_of(broker, topic) as consumer:
        with pytest.raises(ConfigurationError, match="NoneType, which cannot be awaited"):
            await consumer.run(lambda event: calls.append(number_of(event)))  # type: ignore[arg-type, return-value]
        with pytest.raises(ConfigurationError, match="handler is 'print'"):
            await consumer.run("print")  # type: ignore[arg-type]
        assert [number_of(event) for event in await take(consumer, 2)] == [0, 1]
    assert calls == [0]


async def test_poison_is_skipped_and_counted(broker: Broker, topic: str) -> None:
    put(broker, topic, b"{", None)
    publish(broker, topic, [1])
    async with consumer_of(broker, topic, consumer_timeout_ms=IDLE_MS) as consumer:
        assert numbers([event async for event in consumer]) == [1]
        assert consumer.poison_count == 2


@pytest.mark.parametrize("where", ["memory", "file"])
async def test_events_that_were_seen_are_passed_over(
    broker: Broker, topic: str, where: str, tmp_path: Path
) -> None:
    publish(broker, topic, range(5))
    seen: SeenEvents = SeenInMemory() if where == "memory" else SeenInSqlite(tmp_path / "seen.db")
    async with consumer_of(broker, topic, seen=seen) as consumer:
        assert len(await take(consumer, 5)) == 5
    async with consumer_of(broker, topic, seen=seen, consumer_timeout_ms=IDLE_MS) as consumer:
        assert await take(consumer, 1) == []
        assert consumer.repeated_count == 5


async def test_a_broker_that_is_away_is_noticed_at_the_start() -> None:
    consumer = AsyncWorkflowEventConsumer("127.0.0.1:1", connect_timeout_ms=200)
    with pytest.raises(KafkaConnectionError):
        await consumer.start()
    with pytest.raises(ConsumerClosedError):
        await take(consumer, 1)
    assert repr(consumer) == (
        "<AsyncWorkflowEventConsumer of <WorkflowEventConsumer 127.0.0.1:1 topic=workflow-events closed>>"
    )
