"""Waiting for events on an event loop, through the one consumer that a process has for a topic."""

# ruff: noqa: TID253 - this module is for asyncio

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow_workflow_events.compat import AirflowNotFoundException

from airflow_workflow_events import forks
from airflow_workflow_events.errors import ConfigurationError, ConsumerClosedError, WorkflowEventsError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.supervisor_channel import share_supervisor_channel

if TYPE_CHECKING:
    from airflow_workflow_events.kafka.hub import EventHub
    from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent
    from airflow_workflow_events.kafka.positions import StartFrom
    from airflow_workflow_events.kafka.subscriptions import Delivery, Positions, Progress, Subscription

log: logging.Logger = logging.getLogger(__name__)

# Where a new subscription begins is asked through the connection that a fetch without events holds so long.
_FETCH_WAIT, _FETCH_WAIT_MS = "fetch.wait.max.ms", 100

_hubs: dict[tuple[str, str | None], EventHub] = {}
_lock = threading.Lock()


class EventStream:
    """What comes of the events that somebody waits for; to be entered, and iterated over.

    Iterating raises where waiting is in vain: :class:`~airflow_workflow_events.errors.ConfigurationError`
    where no consumer can be made of the connection, ``KafkaAuthenticationError`` and
    ``KafkaAuthorizationError`` where the brokers refuse its login or the topic. An outage does not end it.

    Args:
        conn_id: Airflow's connection.
        topic: the topic, or ``None`` for the connection's.
        filters: the events waited for match one of these.
        start: where to begin: see :class:`~airflow_workflow_events.kafka.subscriptions.Subscription`.
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
        from airflow_workflow_events.kafka.subscriptions import Subscription

        self._name = (conn_id, topic)
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        share_supervisor_channel()
        self._subscription = Subscription(
            filters, start, self._deliver, backlog=self._waiting.__len__, wants_progress=wants_progress
        )
        self._hub: EventHub | None = None

    async def __aenter__(self) -> Self:
        self._hub = _subscribe(self._name, self._subscription)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aiter__(self) -> AsyncIterator[ReceivedEvent | Progress]:
        while True:
            while self._waiting:
                delivery = self._waiting.popleft()
                if isinstance(delivery, WorkflowEventsError):
                    raise delivery
                yield delivery
            self._arrived.clear()
            if not self._waiting:
                await self._arrived.wait()

    def trouble(self) -> str | None:
        """Return the last error of the consumer, if it has one and has not recovered."""
        return None if self._hub is None else self._hub.trouble()

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Take what has come, in the hub's thread."""
        self._waiting.extend(deliveries)
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop was closed; nobody is left to be told
            self._leave()

    def _leave(self) -> None:
        if self._hub is not None:
            self._hub.unsubscribe(self._subscription)


@contextmanager
def absence_told(conn_id: str) -> Iterator[None]:
    """Turn Airflow's error of a connection that does not exist into a :class:`ConfigurationError`."""
    try:
        yield
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"connection {conn_id!r} does not exist: create it, or correct its name ({error})"
        ) from error


def _subscribe(name: tuple[str, str | None], subscription: Subscription) -> EventHub:
    """Subscribe at the process's hub of that name, which is made if there is none."""
    with _lock:
        hub = _hubs.get(name)
        if hub is not None:
            with suppress(ConsumerClosedError):  # it may close just now, as nobody was waiting
                hub.subscribe(subscription)
                return hub
        for closed in [other for other, one in _hubs.items() if one.is_closed]:
            del _hubs[closed]
        hub = _hubs[name] = _open_hub(*name)
        hub.subscribe(subscription)
        return hub


def _open_hub(conn_id: str, topic: str | None) -> EventHub:
    # The consumer's as well, before the hub's thread starts: a child that is forked while a thread imports
    # would wait for the import.
    from airflow_workflow_events.kafka import consumer  # noqa: F401
    from airflow_workflow_events.kafka.hub import EventHub

    def open_intake() -> Intake:
        # Looked up here, in the hub's thread, as asking Airflow for a connection takes its time; and each
        # time a client is made, as a password may have been changed meanwhile.
        options: dict[str, Any] = {"connect": False, "start_from": "latest"}
        if topic is not None:
            options["topic"] = topic
        with absence_told(conn_id):
            hook = WorkflowEventHook(conn_id)
            wait_ms = hook.consumer_options().get(_FETCH_WAIT, _FETCH_WAIT_MS)
            return hook.get_consumer(config={_FETCH_WAIT: wait_ms}, **options).intake

    return EventHub(open_intake, topic or conn_id)


def _in_child() -> None:
    # The parent's hubs have no threads here, and one of them may have held the lock.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _hubs.clear()


forks.register(after_in_child=_in_child)
