"""The relay: claims, publishes, settles. What it has claimed and cannot settle becomes claimable again."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import (
    EventDecodeError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaTimeoutError,
    OutboxUnavailableError,
    WorkflowEventsError,
)
from airflow_workflow_events.events.codec import decode
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.metrics import Metrics, NoMetrics
from airflow_workflow_events.outbox.entries import OutboxEntry, Route
from airflow_workflow_events.outbox.port import Destination, OpenDestination
from airflow_workflow_events.outbox.store import Outbox

log = logging.getLogger(__name__)

#: How many entries are claimed at once. A claim locks out appends for its duration, so it must be short.
BATCH = 250
#: How long the brokers may take over a batch, in seconds, before the relay backs off.
DELIVERY_SECONDS = 20.0
# Longer than a delivery can take, so that nobody else sends what is still under way.
_LEASE_SECONDS = 3 * DELIVERY_SECONDS
_MOST_DOUBLINGS = 2
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_YIELD_EVERY = 50

# After these a producer is of no more use: it was given up, or remembers that it was refused.
_SPOILING = (KafkaTimeoutError, KafkaAuthenticationError, KafkaAuthorizationError)
# Somebody may create the topic; an authorizer says the same of a topic that may not be seen.
_MISSING_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})


@dataclass(slots=True)
class Drained:
    """What one round did.

    Attributes:
        delivered: how many events the brokers confirmed.
        parked: how many were parked.
        failed: how many will be attempted again.
    """

    delivered: int = 0
    parked: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Backoff:
    failures: int = 0
    until: float = field(default=0.0)

    def fail(self) -> float:
        """Wait longer after each failure, with jitter so that many relays do not come back at once."""
        self.failures += 1
        seconds = _backoff_seconds(self.failures)
        self.until = time.monotonic() + seconds
        return seconds


class Relay:
    """Delivers what is in an outbox. One per process and outbox; not safe for threads.

    Args:
        outbox: the outbox.
        open_destination: makes what delivers, by connection.
        metrics: where to count. Default: nowhere.
        delivery_seconds: how long the brokers may take over a batch, in seconds; after a failure up to four
            times as long. Default 20.
        batch: how many entries are claimed at once. Default 250.
    """

    def __init__(
        self,
        outbox: Outbox,
        open_destination: OpenDestination,
        *,
        metrics: Metrics | None = None,
        delivery_seconds: float = DELIVERY_SECONDS,
        batch: int = BATCH,
    ) -> None:
        self.outbox = outbox
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._open_destination = open_destination
        self._metrics = metrics or NoMetrics()
        self._delivery_seconds = delivery_seconds
        self._batch = batch
        self._destinations: dict[str | None, Destination] = {}
        self._backoffs: dict[Route, _Backoff] = {}
        self._stopping = False

    def drain(self, *, deadline: float | None = None, key: str | None = None) -> Drained:
        """Deliver what may be attempted now, until nothing is left, the deadline has passed, or :meth:`stop`.

        Args:
            deadline: when to end, in seconds of the monotonic clock. Default: when nothing is left.
            key: only events with this ordering key. Default: any.

        Raises:
            OutboxUnavailableError: the outbox's database cannot be used.
        """
        done = Drained()
        for route in self.outbox.routes():
            while not self._ended(deadline):
                if not self._drain_once(route, deadline, key, done):
                    break
        return done

    def prepare(self, conn_id: str | None = None) -> bool:
        """Make the destination of a connection ahead of the first event; return whether there is one.

        Where that failed a moment ago it is not tried again yet, as a secrets backend may be asked.
        """
        route = Route(conn_id, None)
        if self._backs_off(route) and conn_id not in self._destinations:
            return False
        return self._destination(route) is not None

    def deliver_directly(
        self, route: Route, events: Sequence[tuple[WorkflowEvent, bool]], timeout: float
    ) -> list[bool]:
        """Attempt events that the outbox did not accept; return for each whether it is done with.

        Args:
            route: where to.
            events: the events, each with whether a connection's environment replaces its own.
            timeout: how long the brokers may take, in seconds.

        Returns:
            ``True`` for an event that was delivered, or can never be, which is logged and counted.
        """
        destination = None if self._backs_off(route) else self._destination(route)
        if destination is None:
            return [False] * len(events)
        batch = [
            _in_environment(event, destination.environment if is_default else None)
            for event, is_default in events
        ]
        errors = self._deliver(route, destination, batch, timeout)
        if None not in errors:
            self._back_off(route, str(errors[0]))
        for event, error in zip(batch, errors, strict=True):
            if error is not None and _is_hopeless(error):
                log.error("event %s is lost: %s", event.event_id, error)
                self._metrics.incr(names.FAILED, 1, {"emitted_by": "relay"})
        if delivered := sum(error is None for error in errors):
            self._metrics.incr(names.PUBLISHED, delivered, {"emitted_by": "relay"})
        return [error is None or _is_hopeless(error) for error in errors]

    def stop(self) -> None:
        """End a :meth:`drain` that runs in another thread soon; what it had claimed is released."""
        self._stopping = True
        for destination in list(self._destinations.values()):
            destination.abandon()

    def close(self) -> None:
        """Close the destinations."""
        for conn_id in list(self._destinations):
            self._forget(conn_id)

    def _ended(self, deadline: float | None) -> bool:
        return self._stopping or (deadline is not None and time.monotonic() >= deadline)

    def _backs_off(self, route: Route) -> bool:
        backoff = self._backoffs.get(route)
        return backoff is not None and time.monotonic() < backoff.until

    def _patience(self, route: Route) -> float:
        """How long the brokers may take over a batch: longer, where they took too long before.

        A new producer asks several things before its first event leaves, eight answers' time in all, and one
        that is given up in the middle would begin anew for ever.
        """
        backoff = self._backoffs.get(route)
        failures = 0 if backoff is None else backoff.failures
        return self._delivery_seconds * float(2 ** min(failures, _MOST_DOUBLINGS))

    def _drain_once(self, route: Route, deadline: float | None, key: str | None, done: Drained) -> bool:
        """Handle one batch; return whether there may be more to do at once."""
        if self._backs_off(route):
            return False
        # Before anything is claimed: a process that cannot look the connection up leaves the work to others.
        destination = self._destination(route)
        if destination is None:
            return False
        timeout = self._patience(route)
        lease_seconds = _LEASE_SECONDS + timeout - self._delivery_seconds
        if deadline is not None:
            timeout = min(timeout, max(deadline - time.monotonic(), 0.001))
        claimed_at = time.monotonic()
        entries = self.outbox.claim(
            route, self.owner, lease_seconds=lease_seconds, count=self._batch, key=key
        )
        if not entries:
            return False
        events, unreadable = self._events(entries, destination.environment)
        lease_left = claimed_at + lease_seconds - time.monotonic()
        if lease_left <= 0:
            # This process stood still. Others have these by now, and perhaps what came after them as well.
            self.outbox.settle(self.owner, retried=[(entry.seq, None, 0.0) for entry in entries])
            return True
        timeout = min(timeout, lease_left)
        errors = self._deliver(route, destination, [event for _, event in events], timeout)
        return self._settle(route, [entry for entry, _ in events], errors, unreadable, done)

    def _destination(self, route: Route) -> Destination | None:
        if route.conn_id not in self._destinations:
            try:
                self._destinations[route.conn_id] = self._open_destination(route.conn_id)
            except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything
                self._back_off(route, f"connection {route.conn_id or 'of the default'}: {error}")
                return None
        return self._destinations[route.conn_id]

    def _events(
        self, entries: list[OutboxEntry], environment: str | None
    ) -> tuple[list[tuple[OutboxEntry, WorkflowEvent]], list[tuple[int, str]]]:
        events, unreadable = [], []
        for number, entry in enumerate(entries):
            if number % _YIELD_EVERY == 0:
                time.sleep(0)  # the scheduler's thread would else wait 5 ms for the interpreter
            try:
                event = decode(entry.payload)
            except EventDecodeError as error:  # somebody wrote into the table
                unreadable.append((entry.seq, str(error)))
                continue
            replacement = environment if entry.environment_is_default else None
            events.append((entry, _in_environment(event, replacement)))
        return events, unreadable

    def _deliver(
        self, route: Route, destination: Destination, events: list[WorkflowEvent], timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        if not events:
            return []
        try:
            errors = destination.deliver(events, route.topic, timeout)
        except WorkflowEventsError as error:
            errors = [error] * len(events)
        except Exception as error:  # whatever it is, the entries must not stay claimed
            log.exception("delivering to %s failed", _words(route))
            errors = [KafkaConnectionError(f"{type(error).__name__}: {error}")] * len(events)
        if any(isinstance(error, _SPOILING) for error in errors):
            # A new one looks the connection up again, and asks the broker anew what it may do.
            self._forget(route.conn_id)
        return errors

    def _settle(
        self,
        route: Route,
        entries: list[OutboxEntry],
        errors: Sequence[WorkflowEventsError | None],
        unreadable: list[tuple[int, str]],
        done: Drained,
    ) -> bool:
        delivered = [entry.seq for entry, error in zip(entries, errors, strict=True) if error is None]
        parked = list(unreadable)
        failed: list[tuple[OutboxEntry, WorkflowEventsError]] = []
        for entry, error in zip(entries, errors, strict=True):
            if error is None:
                continue
            if _is_hopeless(error):
                parked.append((entry.seq, str(error)))
            else:
                failed.append((entry, error))
        route_is_down = bool(failed) and not delivered
        retried = [
            # Where nothing gets through it is the route that backs off, not each entry by itself.
            (entry.seq, str(error), 0.0 if route_is_down else _backoff_seconds(entry.attempts + 1))
            for entry, error in failed
        ]
        self.outbox.settle(self.owner, delivered=delivered, parked=parked, retried=retried)
        for seq, reason in parked:
            log.error("event at %d of the outbox is parked: %s", seq, reason)
        self._count(delivered, parked, done)
        done.failed += len(failed)
        if route_is_down:
            self._back_off(route, str(failed[0][1]))
            return False
        if delivered and self._backoffs.pop(route, None) is not None:
            log.info("%s takes events again", _words(route))
        return True

    def _count(self, delivered: list[int], parked: list[tuple[int, str]], done: Drained) -> None:
        done.delivered += len(delivered)
        done.parked += len(parked)
        if delivered:
            self._metrics.incr(names.PUBLISHED, len(delivered), {"emitted_by": "relay"})
        if parked:
            self._metrics.incr(names.PARKED, len(parked))

    def _back_off(self, route: Route, reason: str) -> None:
        backoff = self._backoffs.setdefault(route, _Backoff())
        seconds = backoff.fail()
        if self._stopping:
            return
        level = logging.WARNING if backoff.failures == 1 else logging.INFO
        log.log(level, "%s takes no events, next attempt in %.1f s: %s", _words(route), seconds, reason)

    def _forget(self, conn_id: str | None) -> None:
        destination = self._destinations.pop(conn_id, None)
        if destination is None:
            return
        try:
            destination.close()
        except Exception as error:  # noqa: BLE001 - it is given up in any case
            log.warning("closing a producer failed: %s", error)


def _in_environment(event: WorkflowEvent, environment: str | None) -> WorkflowEvent:
    if environment is None:
        return event
    metadata = event.metadata.model_copy(update={"environment": environment})
    return event.model_copy(update={"metadata": metadata})


def _backoff_seconds(failures: int) -> float:
    longest: float = min(_FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16), _LONGEST_BACKOFF_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def _is_hopeless(error: WorkflowEventsError) -> bool:
    """Whether an event can never be delivered as it is, as opposed to not now or not by this connection."""
    if isinstance(error, KafkaConnectionError | KafkaAuthenticationError | OutboxUnavailableError):
        return False
    return not error.retriable and getattr(error, "name", None) not in _MISSING_TOPIC


def _words(route: Route) -> str:
    return f"connection {route.conn_id or 'default'}, topic {route.topic or 'default'}"
