"""Consumers for asyncio, and what is taken from them, for the tests of their promises."""

from __future__ import annotations

from typing import Any

from airflow_workflow_events import AsyncWorkflowEventConsumer, WorkflowEvent
from tests.broker import Broker
from tests.contract.consuming import PATIENCE_MS, QUICK


def consumer_of(
    broker: Broker, topic: str, group_id: str | None = None, **options: Any
) -> AsyncWorkflowEventConsumer:
    """A consumer that begins with the oldest event."""
    merged: dict[str, Any] = {
        "topic": topic,
        "start_from": "earliest",
        "consumer_timeout_ms": PATIENCE_MS,
        "config": QUICK,
    } | options
    return AsyncWorkflowEventConsumer(broker.bootstrap_servers, group_id, **merged)


async def take(consumer: AsyncWorkflowEventConsumer, count: int) -> list[WorkflowEvent]:
    """The next events; the last of them stays in hand."""
    found: list[WorkflowEvent] = []
    if count:
        async for event in consumer:
            found.append(event)
            if len(found) == count:
                break
    return found
