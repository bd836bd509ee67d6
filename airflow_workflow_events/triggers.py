"""The trigger: waits in the triggerer for workflow events, for sensors and for assets."""

# ruff: noqa: TID253 - this module is for asyncio

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import suppress
from inspect import signature
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_workflow_events.compat import conf

from airflow.triggers.base import BaseEventTrigger, TaskSuccessEvent, TriggerEvent
from pydantic import ValidationError

from airflow_workflow_events.errors import ConfigurationError, WorkflowEventsError, printable
from airflow_workflow_events.events.filters import EventFilter, Names, failure_filter
from airflow_workflow_events.events.model import EventType, WorkflowEvent
from airflow_workflow_events.kafka.config import check_group_id, check_topic
from airflow_workflow_events.provider_info import DEFAULT_CONNECTION
from airflow_workflow_events.settings import Settings, default_conn_id
from airflow_workflow_events.storable import storable

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer

    from airflow_workflow_events.kafka.intake import ReceivedEvent
    from airflow_workflow_events.kafka.positions import StartFrom
    from airflow_workflow_events.watching import Watcher

log: logging.Logger = logging.getLogger(__name__)

# Airflow 3.4 assigns the triggers of asset watchers to the queue that they name.
_BASE_TAKES_QUEUE = "queue" in signature(BaseEventTrigger.__init__).parameters
_NO_IDENTITY = frozenset({"start_from", "queue"})
_CLASS_PATH = "airflow_workflow_events.triggers.WorkflowEventTrigger"

# Airflow fails a task that was started again before its scheduler heard that the worker which deferred it has
# ended; it logs "finished with state success, but the task instance's state attribute is running", see
# apache/airflow#72716. The worker reports that [workers] min_heartbeat_interval later at worst, and the
# scheduler needs a while to listen.
_SCHEDULER_SECONDS = 3.0


class WorkflowEventTrigger(BaseEventTrigger):
    """Fires when a workflow event arrives that is waited for.

    For :class:`~airflow.sdk.AssetWatcher`, which schedules DAGs on events, and under
    :class:`~airflow_workflow_events.sensors.WorkflowEventSensor`. All triggers of a triggerer that wait on
    one connection and topic share one consumer, however many they are. Tombstones and whatever else is no
    workflow event are passed over, and an outage of the brokers is sat out.

    With an asset it goes on where it left off, under a consumer group of its own: an offset is committed only
    after Airflow has stored the asset event (Airflow 3.3 and newer), or a while after the event was handed to
    Airflow (3.1 and 3.2), so that an event may come twice after a crash, under the same ``event_id``, but is
    not missed.

    Args:
        workflow_id: name or glob, or several of which one must match. Default ``None``: any.
        workflow_run_id: likewise.
        event_type: likewise. Default: ``"workflow.completed"``.
        source: likewise. Default: any.
        environment: likewise. Default: any.
        data: conditions on ``payload.data``; see
            :class:`~airflow_workflow_events.events.filters.EventFilter`.
        fail_on: event types, of the same workflow, run, source and environment, that end a sensor's waiting
            with failure, also where they are waited for. Default: none.
        topic: the topic. Default: the connection's.
        start_from: where to begin when nothing is committed yet: ``"latest"`` (default), ``"earliest"``, or a
            moment in ISO 8601 with a time zone.
        group_id: the consumer group in which an asset's position is kept; each watcher needs its own.
            Default: one derived from these parameters and ``[workflow_events] source_instance``.
        workflow_events_conn_id: the connection. Default ``None``: ``[workflow_events] conn_id``, read where
            the trigger runs.
        once: fire once and end, as sensors need it. Default ``False``.
        end_from_trigger: with ``once``, have Airflow end the task without starting it again, where what came
            is no failure. Default ``False``.
        until: with ``once``, when to give up: a moment in ISO 8601 with a time zone. Default ``None``: never.
        queue: the trigger queue, from Airflow 3.4 on; older ones have none. Default ``None``.

    Raises:
        ConfigurationError: a parameter cannot be used; the message names it.
    """

    def __init__(
        self,
        *,
        workflow_id: Names = None,
        workflow_run_id: Names = None,
        event_type: Names = EventType.WORKFLOW_COMPLETED.value,
        source: Names = None,
        environment: Names = None,
        data: Mapping[str, Any] | None = None,
        fail_on: Names = None,
        topic: str | None = None,
        start_from: str = "latest",
        group_id: str | None = None,
        workflow_events_conn_id: str | None = None,
        once: bool = False,
        end_from_trigger: bool = False,
        until: str | None = None,
        queue: str | None = None,
    ) -> None:
        super().__init__(**({"queue": queue} if _BASE_TAKES_QUEUE else {}))  # type: ignore[no-untyped-call]
        self.queue = queue
        self.awaited: EventFilter = EventFilter(
            workflow_id=workflow_id,
            workflow_run_id=workflow_run_id,
            event_type=event_type,
            source=source,
            environment=environment,
            data=data,
        )
        self._failures = failure_filter(
            fail_on,
            workflow_id=workflow_id,
            workflow_run_id=workflow_run_id,
            source=source,
            environment=environment,
        )
        if group_id is not None:
            check_group_id(group_id)
        if topic is not None:
            check_topic(topic)
        self.start_from: str = _check_start(start_from)
        self.topic = topic
        self.group_id = group_id
        self.workflow_events_conn_id: str = workflow_events_conn_id or default_conn_id()
        self.once = once
        self.end_from_trigger = end_from_trigger
        self.until = until
        self._until = None if until is None else dt.datetime.fromisoformat(until)
        others = {
            "fail_on": None if self._failures is None else self._failures.parameters["event_type"],
            "topic": topic,
            "start_from": None if start_from == "latest" else start_from,
            "group_id": group_id,
            "workflow_events_conn_id": workflow_events_conn_id or None,
            "once": once or None,
            "end_from_trigger": end_from_trigger or None,
            "until": until,
            "queue": queue,
        }
        self._trouble: Callable[[], str | None] = lambda: None
        self._parameters = {
            "event_type": None,  # given explicitly, as its default is not "any"
            **self.awaited.parameters,
            **{name: value for name, value in others.items() if value is not None},
        }

    def __str__(self) -> str:
        where = f"topic {self.topic} of " if self.topic else ""
        failures = "" if self._failures is None else f", failing on {self._failures.parameters['event_type']}"
        return f"{self.awaited} on {where}{self.workflow_events_conn_id} since {self.start_from}{failures}"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores: the class path and the parameters that are not defaults."""
        return _CLASS_PATH, dict(self._parameters)

    @property
    def start(self) -> StartFrom | dt.datetime:
        """Where to begin when nothing is committed yet."""
        from airflow_workflow_events.kafka.positions import StartFrom

        if self.start_from in {"latest", "earliest"}:
            return StartFrom(self.start_from)
        return dt.datetime.fromisoformat(self.start_from)

    @property
    def effective_group_id(self) -> str:
        """The consumer group in which the position is kept."""
        if self.group_id is not None:
            return self.group_id
        # Where to begin and where to run say nothing about who this is, nor does naming the usual connection.
        identity = {name: value for name, value in self._parameters.items() if name not in _NO_IDENTITY}
        if identity.get("workflow_events_conn_id") == DEFAULT_CONNECTION:
            del identity["workflow_events_conn_id"]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return ".".join(filter(None, ("airflow-workflow-events", Settings.load().source_instance, digest)))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait by itself: a sensor's trigger, and an asset's before Airflow 3.3."""
        if not self.once:
            async for event in self._run_unconfirmed():
                yield event
            return
        # DAG.test() runs triggers in its own process: no scheduler there to wait for, and nobody but the task
        # itself to end it.
        is_in_triggerer = self.trigger_id is not None
        resumable_at = monotonic() + (resume_after_seconds() if is_in_triggerer else 0)
        try:
            async with asyncio.timeout(self._remaining_seconds()):
                found = await self._find()
        except TimeoutError:
            # What Kafka said last is in the triggerer's log alone, unless the task tells it.
            found = {"failed": True, "timed_out": True}
            if (trouble := self._trouble()) is not None:
                found["trouble"] = trouble
        except WorkflowEventsError:
            await _sleep_until(resumable_at)
            raise
        if self.end_from_trigger and is_in_triggerer and not found["failed"]:
            yield _succeed(found["event"])
        else:
            await _sleep_until(resumable_at)
            yield _fire(found)

    def _remaining_seconds(self) -> float | None:
        return None if self._until is None else (self._until - dt.datetime.now(dt.UTC)).total_seconds()

    async def _find(self) -> dict[str, Any]:
        """Wait for the event that ends a sensor's waiting, and return what :meth:`judge` says of it."""
        from airflow_workflow_events.kafka.subscriptions import Progress
        from airflow_workflow_events.waiting import EventStream

        filters = [one for one in (self.awaited, self._failures) if one is not None]
        stream = EventStream(self.workflow_events_conn_id, self.topic, filters, self.start)
        self._trouble = stream.trouble
        async with stream:
            async for delivery in stream:
                if not isinstance(delivery, Progress) and (found := self.judge(delivery)) is not None:
                    return found
        raise AssertionError("a stream has no end")

    def shared_stream_key(self) -> Hashable | None:
        """Have Airflow 3.3 and newer confirm what it has stored: its shared streams do that."""
        if self.once or not _has_shared_streams():
            return None
        return ("workflow-events", self.workflow_events_conn_id, self.topic, self.effective_group_id)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the stream of a watcher with these parameters, which commits what Airflow has stored."""
        from airflow_workflow_events.watching import WatcherStream

        return WatcherStream(cls(**kwargs).watcher())

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire for each event of the stream; it holds only those that are waited for."""
        async for received in shared_stream:
            yield _fire(as_json(received))

    def watcher(self) -> Watcher:
        """Return what an asset's trigger waits through: a stream with a position that is kept in Kafka."""
        from airflow_workflow_events.watching import Watcher

        return Watcher(
            self.workflow_events_conn_id, self.topic, self.awaited, self.start, self.effective_group_id
        )

    async def _run_unconfirmed(self) -> AsyncIterator[TriggerEvent]:
        async with self.watcher() as watcher:
            async for received in watcher.events():
                yield _fire(as_json(received))
                watcher.hand_over(received)

    def judge(self, received: ReceivedEvent) -> dict[str, Any] | None:
        """Return an event as a sensor wants it, and whether it means failure; ``None`` for any other."""
        if self._failures is not None and self._failures.matches(received.event):
            return {"failed": True, "event": as_json(received)}
        if self.awaited.matches(received.event):
            return {"failed": False, "event": as_json(received)}
        return None


def triggering_workflow_events(context: Mapping[str, Any]) -> list[WorkflowEvent]:
    """Return the workflow events that started a run, through whichever asset they came; the oldest is first.

    What other triggers, tasks or people have put into an asset event is passed over. So is a workflow event
    that this version cannot read, with a warning.

    Args:
        context: the task's context, as a task gets it with ``**context``.
    """
    found = context.get("triggering_asset_events") or {}
    read = (_event_in(asset_event.extra) for asset_events in found.values() for asset_event in asset_events)
    # Airflow gives them in any order.
    return sorted((event for event in read if event is not None), key=lambda event: event.timestamp)


def _event_in(extra: object) -> WorkflowEvent | None:
    if not isinstance(extra, Mapping) or not extra.get("from_trigger"):
        return None
    payload = extra.get("payload")
    if not isinstance(payload, Mapping) or not payload.keys() >= {"event_id", "event_type", "workflow_id"}:
        return None
    try:
        return WorkflowEvent.model_validate(payload)
    except ValidationError as error:
        log.warning(
            "passed over event %s of an asset, which cannot be read: %s",
            printable(payload["event_id"]),
            printable(error),
        )
        return None


def resume_after_seconds() -> float:
    """Return how long a task has to have been deferred before it may be started again, in seconds."""
    return float(conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)) + _SCHEDULER_SECONDS


def as_json(received: ReceivedEvent) -> dict[str, Any]:
    """Return an event as JSON values that Airflow can store: see :func:`.storable.storable`."""
    return storable(received.event.model_dump(mode="json", exclude_none=True))


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(moment - monotonic(), 0))


def _fire(payload: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]


def _succeed(result: dict[str, Any]) -> TriggerEvent:
    return TaskSuccessEvent(xcoms={"return_value": result})


def _check_start(text: str) -> str:
    moment = None
    with suppress(TypeError, ValueError):
        moment = dt.datetime.fromisoformat(text)
    if text not in {"latest", "earliest"} and (moment is None or moment.tzinfo is None):
        raise ConfigurationError(
            f"start_from is {text!r}: use 'latest', 'earliest', or a moment with a time zone in ISO 8601"
        )
    return text


def _has_shared_streams() -> bool:
    try:
        import airflow.triggers.shared_stream  # noqa: F401
    except ImportError:
        return False
    return True
