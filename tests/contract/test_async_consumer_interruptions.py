"""Cancellations and ends at any moment lose nothing, and nothing blocks the loop."""

from __future__ import annotations

import asyncio  # noqa: TID253 - what is tested here
import contextlib
import subprocess
import sys
import textwrap
import threading

import pytest

from airflow_workflow_events import (
    ConsumerClosedError,
    WorkflowEvent,
)
from tests.broker import Broker
from tests.contract.async_consuming import consumer_of, take
from tests.contract.consuming import (
    new_group,
    number_of,
    publish,
)


async def test_cancellations_at_any_moment_lose_nothing(
    broker: Broker, topic: str, maybe_group: str | None
) -> None:
    publish(broker, topic, range(300))
    found: set[int] = set()
    async with consumer_of(broker, topic, maybe_group) as consumer:

        async def read() -> None:
            async for event in consumer:
                found.add(number_of(event))
                if len(found) % 7 == 0:
                    await asyncio.sleep(0)
                if len(found) == 300:
                    return

        for attempt in range(1_000):
            # Until the group has shared out there is little to cut into.
            patience_seconds = 0.05 if maybe_group and not found else 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_seconds + 0.001 * (attempt % 40)):
                    await read()
            if len(found) == 300:
                break

    assert found == set(range(300))


async def test_the_loop_goes_on_during_a_wait(broker: Broker, topic: str, maybe_group: str | None) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with consumer_of(broker, topic, maybe_group, consumer_timeout_ms=500) as consumer:
        ticking = asyncio.create_task(tick())
        assert await take(consumer, 1) == []
        ticking.cancel()
    assert ticks > 10


async def test_closing_during_a_pull_ends_it(broker: Broker, topic: str, maybe_group: str | None) -> None:
    consumer = consumer_of(broker, topic, maybe_group, consumer_timeout_ms=None)
    await consumer.start()
    reading = asyncio.create_task(take(consumer, 1))
    while consumer._pulling is None:
        await asyncio.sleep(0)

    await consumer.close()
    await consumer.close()

    assert await reading == []
    with pytest.raises(ConsumerClosedError, match="create a new one"):
        await take(consumer, 1)
    with pytest.raises(ConsumerClosedError):
        await consumer.commit()


async def test_a_close_that_is_cancelled_closes_all_the_same(broker: Broker, topic: str) -> None:
    consumer = consumer_of(broker, topic, new_group())
    await consumer.start()
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await consumer.close()

    assert consumer._consumer.intake.client.closed


async def test_a_handler_that_is_cancelled_gets_its_event_again(broker: Broker, topic: str) -> None:
    publish(broker, topic, range(2), workflow_run_id="one")

    handling = asyncio.Event()

    async def hang(_event: WorkflowEvent) -> None:
        handling.set()
        await asyncio.Event().wait()  # for ever

    async with consumer_of(broker, topic) as consumer:
        running = asyncio.create_task(consumer.run(hang))
        await handling.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [number_of(event) for event in await take(consumer, 2)] == [0, 1]


async def test_whoever_says_what_was_seen_may_take_a_while_without_blocking_the_loop(
    embedded_broker: Broker,
) -> None:
    topic, answered, blocked = new_group(), threading.Event(), False

    class Slow:
        """Stands for a database that is locked until the loop has gone on."""

        def __contains__(self, event_id: str) -> bool:
            nonlocal blocked
            blocked = blocked or not answered.wait(20)
            answered.clear()
            return False

        def add(self, event_id: str) -> None:
            assert event_id not in self

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.01)
            answered.set()

    (event,) = publish(embedded_broker, topic, [1])
    async with consumer_of(embedded_broker, topic, seen=Slow()) as consumer:
        going_on = asyncio.create_task(go_on())
        assert await take(consumer, 1) == [event]
        await consumer.commit()
        going_on.cancel()
    assert not blocked


def test_a_program_that_forgets_to_close_ends_all_the_same(embedded_broker: Broker) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio
        from airflow_workflow_events import AsyncWorkflowEventConsumer

        async def main():
            consumer = AsyncWorkflowEventConsumer({embedded_broker.bootstrap_servers!r})
            try:
                async with asyncio.timeout(0.5):
                    async for _ in consumer:
                        pass
            except TimeoutError:
                print("over")

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr[-2000:]
