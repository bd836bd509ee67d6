"""Waiting for events on an event loop, through the one consumer that a process has for a topic."""

# ruff: noqa: TID253 - this module is for asyncio

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.hooks import WorkflowEventHook

if TYPE_CHECKING:
    from airflow_workflow_events.kafka.hub import Delivery, EventHub, Positions
    from airflow_workflow_events.kafka.intake import Intake
    from airflow_workflow_events.kafka.positions import StartFrom

log = logging.getLogger(__name__)

# A consumer that nobody waits on any more is kept for those who come next.
_LINGER_SECONDS = 30.0

_hubs: dict[tuple[str, str | None], EventHub] = {}
_lock = threading.Lock()


class EventStream:
    """What comes of the events that somebody waits for; to be entered, and iterated over.

    Args:
        conn_id: Airflow's connection.
        topic: the topic, or ``None`` for the connection's.
        filters: the events waited for match one of these.
        start: where to begin: see :class:`~airflow_workflow_events.kafka.hub.Subscription`.
        wants_progress: whether to be told now and then how far everything has been handed over.
    """

    def __init__(
        self,
        conn_id: str,
        topic: str | None,
        filters: Sequence[EventFilter],
        start: StartFrom | dt.datetime | Positions,
        *,
        wants_progress: bool = False,
    ) -> None:
        from airflow_workflow_events.kafka.hub import Subscription

        self._name = (conn_id, topic)
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._subscription = Subscription(
            filters, start, self._deliver, backlog=self._waiting.__len__, wants_progress=wants_progress
        )
        self._hub: EventHub | None = None

    async def __aenter__(self) -> Self:
        with _lock:
            hub = _hubs.get(self._name)
            if hub is None:
                hub = _hubs[self._name] = _open_hub(*self._name)
            hub.subscribe(self._subscription)
        self._hub = hub
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hub is not None:
            self._hub.unsubscribe(self._subscription)
            if not len(self._hub):
                self._loop.call_later(_LINGER_SECONDS, _close_if_unused, self._name)

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            self._arrived.clear()
            if not self._waiting:
                await self._arrived.wait()

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Take what has come, in the hub's thread."""
        self._waiting.extend(deliveries)
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop was closed; nobody is left to be told
            log.debug("events came after their event loop was closed")


def _open_hub(conn_id: str, topic: str | None) -> EventHub:
    from airflow_workflow_events.kafka.hub import EventHub

    def open_intake() -> Intake:
        # Looked up here, in the hub's thread, as asking Airflow for a connection takes its time; and each
        # time a client is made, as a password may have been changed meanwhile.
        options: dict[str, Any] = {"connect": False, "start_from": "latest"}
        if topic is not None:
            options["topic"] = topic
        return WorkflowEventHook(conn_id).get_consumer(**options).intake

    return EventHub(open_intake, topic or conn_id)


def _close_if_unused(name: tuple[str, str | None]) -> None:
    with _lock:
        hub = _hubs.get(name)
        if hub is None or len(hub):
            return
        del _hubs[name]
    hub.close(wait=False)


os.register_at_fork(after_in_child=_hubs.clear)
