"""The columns of the matrix: every way by which an event goes to Kafka, and by which one waits for it."""

# ruff: noqa: TID253 - some of them run on an event loop

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_workflow_events import (
    AsyncWorkflowEventConsumer,
    AsyncWorkflowEventProducer,
    WorkflowEventConsumer,
    WorkflowEventProducer,
)
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.kafka.group_offsets import GroupOffsets
from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.publisher import Publication
from airflow_workflow_events.relaying import open_destination
from airflow_workflow_events.sensors import WorkflowEventSensor
from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.events import make_event
from tests.faults.security.cells import IN_GROUP, READS, WRITES
from tests.unit.airflow_side.contexts import dag_context, make_dag, make_run
from tests.unit.airflow_side.running import run_task
from tests.waiting import await_condition

#: Long enough that ending by it is told from ending by a refusal.
BOUND_SECONDS = 60


@dataclass(frozen=True)
class Attempt:
    """What a surface gets.

    Attributes:
        config: librdkafka's, of the cell. The default connection has the same.
        topic: where to.
        directory: for files.
        log: what the package has logged until now.
    """

    config: Mapping[str, Any]
    topic: str
    directory: Path
    log: Callable[[], str]

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's parameters of a client."""
        return {"topic": self.topic, "config": self.config, "connect_timeout_ms": BOUND_SECONDS * 1000}


def _producer(attempt: Attempt, *, connect: bool = True) -> None:
    with WorkflowEventProducer(**attempt.options, connect=connect) as producer:
        report = producer.deliver(make_event(), timeout=BOUND_SECONDS)
    if report.error is not None:
        raise report.error


def _later_producer(attempt: Attempt) -> None:
    _producer(attempt, connect=False)


def _async_producer(attempt: Attempt) -> None:
    async def publish() -> None:
        async with AsyncWorkflowEventProducer(**attempt.options) as producer:
            report = await producer.deliver(make_event(), timeout=BOUND_SECONDS)
        if report.error is not None:
            raise report.error

    asyncio.run(publish())


def _hook(_attempt: Attempt) -> None:
    with WorkflowEventHook().get_producer() as producer:
        report = producer.deliver(make_event(), timeout=BOUND_SECONDS)
    if report.error is not None:
        raise report.error


def _test_button(_attempt: Attempt) -> str | None:
    works, message = WorkflowEventHook().test_connection()
    return None if works else message


def _operator(_attempt: Attempt) -> None:
    run_task(PublishWorkflowEventOperator(task_id="publish", event_type="orders.loaded", dag=make_dag()))


def _callback(attempt: Attempt) -> str | None:
    published = Publication(emitted_by="callback", timeout_seconds=BOUND_SECONDS).publish(dag_context())
    return None if published else attempt.log()


def _relay(attempt: Attempt) -> str | None:
    outbox = Outbox(OutboxDatabase(f"sqlite:///{attempt.directory}/outbox.db"))
    outbox.append(make_event(), Route(None, None), environment_is_default=False)
    relay = Relay(outbox, open_destination, delivery_seconds=BOUND_SECONDS)
    try:
        done = relay.drain()
    finally:
        relay.close()
    return None if done.delivered else attempt.log()


def _consumer(attempt: Attempt, group_id: str | None = None) -> None:
    options = attempt.options | {"start_from": "earliest", "consumer_timeout_ms": BOUND_SECONDS * 1000}
    with WorkflowEventConsumer(**options, group_id=group_id) as consumer:
        assert next(iter(consumer)) is not None


def _async_consumer(attempt: Attempt) -> None:
    async def read() -> None:
        options = attempt.options | {"start_from": "earliest"}
        async with AsyncWorkflowEventConsumer(**options) as consumer, asyncio.timeout(BOUND_SECONDS):
            assert await anext(consumer.records()) is not None

    asyncio.run(read())


def _consumer_in_group(attempt: Attempt) -> None:
    _consumer(attempt, f"reports-{uuid.uuid4()}")


def _sensor(attempt: Attempt) -> None:
    sensor = WorkflowEventSensor(
        task_id="wait",
        topic=attempt.topic,
        event_type=None,
        deferrable=False,
        timeout=BOUND_SECONDS,
        dag=make_dag(),
    )
    run_task(sensor, run=make_run(start_date=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=30)))


def _deferred_sensor(attempt: Attempt) -> None:
    async def wait() -> None:
        trigger = WorkflowEventTrigger(event_type=None, topic=attempt.topic, start_from="earliest", once=True)
        async with asyncio.timeout(BOUND_SECONDS):
            fired = [event async for event in trigger.run()]
        assert len(fired) == 1

    asyncio.run(wait())


def _watchers_position(attempt: Attempt) -> None:
    offsets = GroupOffsets(lambda: attempt.config)
    group = f"airflow-workflow-events.{uuid.uuid4()}"
    offsets.committed(group, attempt.topic)
    offsets.commit(group, {(attempt.topic, 0): 1})
    await_condition(
        lambda: offsets.committed(group, attempt.topic) == {(attempt.topic, 0): 1},
        timeout_seconds=BOUND_SECONDS,
        what="the position",
    )


#: Name, kind, and what tries: it raises, or returns a text, where it was refused.
SURFACES: dict[str, tuple[str, Callable[[Attempt], str | None]]] = {
    "producer": (WRITES, _producer),
    "producer, connect=False": (WRITES, _later_producer),
    "asyncio producer": (WRITES, _async_producer),
    "hook": (WRITES, _hook),
    "test button": (WRITES, _test_button),
    "operator": (WRITES, _operator),
    "callback": (WRITES, _callback),
    "relay": (WRITES, _relay),
    "consumer": (READS, _consumer),
    "asyncio consumer": (READS, _async_consumer),
    "sensor": (READS, _sensor),
    "deferred sensor": (READS, _deferred_sensor),
    "consumer in a group": (IN_GROUP, _consumer_in_group),
    "watcher's position": (IN_GROUP, _watchers_position),
}
