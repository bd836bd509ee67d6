"""The relay: claims, publishes, settles. What it has claimed and cannot settle becomes claimable again."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import (
    EventDecodeError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaTimeoutError,
    ProducerClosedError,
    WorkflowEventsError,
    printable,
    text_of,
)
from airflow_workflow_events.events.codec import decode
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.metrics import Metrics, NoMetrics
from airflow_workflow_events.outbox.destinations import Destinations, Lent, connection_words, route_words
from airflow_workflow_events.outbox.entries import OutboxEntry, Route
from airflow_workflow_events.outbox.halving import deliver_in_halves
from airflow_workflow_events.outbox.outcome import Outcome, is_about_records, is_hopeless, may_be_of_batch
from airflow_workflow_events.outbox.port import Explaining, OpenDestination
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.outbox.troubles import (
    LONGEST_BACKOFF_SECONDS,
    REFUSED_BACKOFF_SECONDS,
    Troubles,
    backoff_seconds,
)

log: logging.Logger = logging.getLogger(__name__)

#: How many entries are claimed at once. A claim locks out appends for its duration, so it must be short.
BATCH = 250
#: How long the brokers may take over a batch, in seconds, before the relay backs off.
DELIVERY_SECONDS = 20.0
# Longer than a delivery can take, so that nobody else sends what is still under way.
_LEASE_SECONDS = 3 * DELIVERY_SECONDS
_MOST_DOUBLINGS = 2
_YIELD_EVERY = 50

# After these a producer is of no more use: it was given up, or remembers that it was refused.
_SPOILING = (KafkaTimeoutError, KafkaAuthenticationError, KafkaAuthorizationError, ProducerClosedError)


@dataclass(slots=True)
class Drained:
    """What one round did.

    Attributes:
        delivered: how many events the brokers confirmed.
        parked: how many were parked.
        failed: how many will be attempted again.
        reason: why the last of them failed, or why there was no attempt; ``None`` where nothing went wrong.
    """

    delivered: int = 0
    parked: int = 0
    failed: int = 0
    reason: str | None = None


class Relay:
    """Delivers what is in an outbox. Threads may drain different routes at a time; one route has one at most.

    Args:
        outbox: the outbox.
        open_destination: makes what delivers, by connection.
        metrics: where to count. Default: nowhere.
        delivery_seconds: how long the brokers may take over a batch, in seconds; after a failure up to four
            times as long. Default 20.
        batch: how many entries are claimed at once. Default 250.
        log_troubles: whether to log what takes no events; if not, :class:`Drained` alone has the reason.
            Default ``True``.
    """

    def __init__(
        self,
        outbox: Outbox,
        open_destination: OpenDestination,
        *,
        metrics: Metrics | None = None,
        delivery_seconds: float = DELIVERY_SECONDS,
        batch: int = BATCH,
        log_troubles: bool = True,
    ) -> None:
        self.outbox = outbox
        self.owner: str = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._metrics = metrics or NoMetrics()
        self._delivery_seconds = delivery_seconds
        self._batch = batch
        self._log_troubles = log_troubles
        self._destinations = Destinations(open_destination)
        self._troubles = Troubles()
        self._lanes: defaultdict[Route, threading.Lock] = defaultdict(threading.Lock)
        self._under_way: dict[Route, tuple[float, Lent]] = {}
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
        routes = self.outbox.routes()
        for left, route in zip(range(len(routes), 0, -1), routes, strict=True):
            # Each has its share of the time that is left, so that one whose brokers are away starves none.
            now = time.monotonic()
            share = None if deadline is None else now + (deadline - now) / left
            self.drain_route(route, done, deadline=share, key=key)
        return done

    def drain_route(
        self, route: Route, done: Drained, *, deadline: float | None = None, key: str | None = None
    ) -> None:
        """Do what :meth:`drain` does for one route, unless another thread does it; add to ``done``."""
        lane = self._lanes[route]
        if not lane.acquire(blocking=False):
            return
        try:
            while not self._ended(deadline) and self._drain_once(route, deadline, key, done):
                pass
        finally:
            lane.release()

    def holds_back(self, route: Route) -> bool:
        """Return whether it is too early for another attempt at a route."""
        return self._troubles.hold_back(route)

    def is_in_trouble(self, route: Route) -> bool:
        """Return whether the last attempt at a route failed."""
        return self._troubles.has(route)

    def is_prepared(self, conn_id: str | None = None) -> bool:
        """Return whether the destination of a connection is open."""
        return self._destinations.has(conn_id)

    def prepare(self, conn_id: str | None = None) -> bool:
        """Make the destination of a connection ahead of the first event; return whether there is one.

        Where that failed a moment ago it is not tried again yet, as a secrets backend may be asked. Failures
        are logged for debugging alone: a process that only begins may not be able to look anything up yet.
        """
        route = Route(conn_id, None)
        if self._troubles.hold_back(route):
            return self.is_prepared(conn_id)
        try:
            self._destinations.prepare(conn_id)
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything
            self._cannot_open(conn_id, error, quietly=True)
            return False
        return True

    def look_again(self) -> None:
        """Look every connection up again before its next delivery, and attempt at once what backs off."""
        self._destinations.look_again()
        self._troubles.try_now()

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
        if self._troubles.hold_back(route):
            return [False] * len(events)
        with ExitStack() as stack:
            lent = self._lend(route, stack)
            if isinstance(lent, str):
                return [False] * len(events)
            batch = [
                _in_environment(event, lent.destination.environment if is_default else None)
                for event, is_default in events
            ]
            errors = self._deliver(route, lent, batch, timeout)
            name = route_words(route, lent.destination)
        if None not in errors:
            self._fail(route, name, errors)
        for event, error in zip(batch, errors, strict=True):
            if error is not None and is_hopeless(error):
                log.error("event %s is lost: %s", printable(event.event_id), error)
                self._metrics.incr(names.FAILED, 1, {"emitted_by": "relay"})
        if delivered := sum(error is None for error in errors):
            self._metrics.incr(names.PUBLISHED, delivered, {"emitted_by": "relay"})
        return [error is None or is_hopeless(error) for error in errors]

    def warn_of_slow(self, after_seconds: float) -> None:
        """Log of each first attempt that has no answer for so long, in seconds, what keeps it; once."""
        if self._stopping or not self._log_troubles:
            return
        for route, (began, lent) in list(self._under_way.items()):
            if (seconds := time.monotonic() - began) >= after_seconds:
                known = lent.destination
                reason = known.trouble() if isinstance(known, Explaining) else None
                self._troubles.warn_of_slow(route, route_words(route, known), seconds, reason)

    def stop(self) -> None:
        """End a :meth:`drain` that runs in another thread soon; what it had claimed is released."""
        self._stopping = True
        self._destinations.abandon()

    def close(self) -> None:
        """Close the destinations."""
        self._destinations.close()

    def _ended(self, deadline: float | None) -> bool:
        return self._stopping or (deadline is not None and time.monotonic() >= deadline)

    def _patience(self, route: Route) -> float:
        """How long the brokers may take over a batch: longer, where they took too long before.

        A new producer asks several things before its first event leaves, eight answers' time in all, and one
        that is given up in the middle would begin again each time.
        """
        return self._delivery_seconds * float(2 ** min(self._troubles.failures(route), _MOST_DOUBLINGS))

    def _lend(self, route: Route, stack: ExitStack) -> Lent | str:
        """Return a destination until the stack is left, or why there is none."""
        apart = self._troubles.is_known(route)
        try:
            return stack.enter_context(self._destinations.lend(route, apart=apart))
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything
            return self._cannot_open(route.conn_id, error)

    def _cannot_open(self, conn_id: str | None, error: Exception, *, quietly: bool = False) -> str:
        reason = printable(text_of(error))
        self._troubles.fail_connection(
            conn_id,
            connection_words(conn_id),
            reason,
            longest=LONGEST_BACKOFF_SECONDS,
            quietly=quietly or not self._log_troubles,
        )
        return reason

    def _drain_once(self, route: Route, deadline: float | None, key: str | None, done: Drained) -> bool:
        """Handle one batch; return whether there may be more to do at once."""
        if self._troubles.hold_back(route):
            return False
        with ExitStack() as stack:
            # Before anything is claimed: who cannot look the connection up leaves the work to others.
            lent = self._lend(route, stack)
            if isinstance(lent, str):
                done.reason = lent
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
            events, unreadable = self._events(entries, lent.destination.environment)
            lease_left = claimed_at + lease_seconds - time.monotonic()
            if lease_left <= 0:
                # This process stood still. Others have these by now, and perhaps what came after them.
                self.outbox.settle(self.owner, retried=[(entry.seq, None, 0.0) for entry in entries])
                return True
            errors = self._deliver(route, lent, [event for _, event in events], min(timeout, lease_left))
            outcome = Outcome.of([entry for entry, _ in events], errors, unreadable, lent.is_fresh)
            name = route_words(route, lent.destination)
        return self._settle(route, name, outcome, done)

    def _events(
        self, entries: list[OutboxEntry], environment: str | None
    ) -> tuple[list[tuple[OutboxEntry, WorkflowEvent]], list[tuple[OutboxEntry, str]]]:
        events, unreadable = [], []
        for number, entry in enumerate(entries):
            if number % _YIELD_EVERY == 0:
                time.sleep(0)  # the scheduler's thread would else wait 5 ms for the interpreter
            try:
                event = decode(entry.payload)
            except (EventDecodeError, UnicodeError) as error:  # somebody wrote into the table
                unreadable.append((entry, str(error)))
                continue
            replacement = environment if entry.environment_is_default else None
            events.append((entry, _in_environment(event, replacement)))
        return events, unreadable

    def _deliver(
        self, route: Route, lent: Lent, events: list[WorkflowEvent], timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        if not events:
            return []
        deadline = time.monotonic() + timeout
        # An answer that is not known to be about the events is first taken to be about all of them.
        is_of_batch = may_be_of_batch if self._troubles.failures(route) else is_about_records
        self._under_way[route] = (time.monotonic(), lent)
        try:
            return deliver_in_halves(
                events,
                partial(self._deliver_together, route, lent, deadline),
                is_of_batch,
                partial(self._ended, deadline),
            )
        finally:
            self._under_way.pop(route, None)

    def _deliver_together(
        self, route: Route, lent: Lent, deadline: float, events: Sequence[WorkflowEvent]
    ) -> Sequence[WorkflowEventsError | None]:
        timeout = max(deadline - time.monotonic(), 0.001)
        errors: Sequence[WorkflowEventsError | None]
        try:
            errors = lent.destination.deliver(events, route.topic, timeout)
        except WorkflowEventsError as error:
            errors = [error] * len(events)
        except Exception as error:  # whatever it is, the entries must not stay claimed
            log.exception("delivering to %s failed", route_words(route, lent.destination))
            errors = [KafkaConnectionError(f"{type(error).__name__}: {error}")] * len(events)
        if any(isinstance(error, _SPOILING) for error in errors):
            # A new one looks the connection up again, and asks the broker anew what it may do.
            self._destinations.give_up(lent)
        return errors

    def _settle(self, route: Route, name: str, outcome: Outcome, done: Drained) -> bool:
        delivered, failed = outcome.delivered, outcome.failed
        route_is_down = bool(failed) and not delivered
        retried: list[tuple[int, str | None, float]] = [(seq, None, 0.0) for seq in outcome.again]
        retried += [
            # Where nothing gets through it is the route that backs off, not each entry by itself.
            (entry.seq, str(error), 0.0 if route_is_down else backoff_seconds(entry.attempts + 1))
            for entry, error in failed
        ]
        parked = [(entry.seq, reason) for entry, reason in outcome.parked]
        self.outbox.settle(self.owner, delivered=delivered, parked=parked, retried=retried)
        for entry, reason in outcome.parked:
            log.error("event %s is parked, %s: %s", printable(entry.event_id), name, printable(reason))
        self._count(len(delivered), len(parked), done)
        done.failed += len(failed)
        if failed:
            done.reason = str(failed[-1][1])
        if outcome.was_refused:
            # Its next attempts get a producer of their own, which knows nothing yet.
            self._troubles.note_refused(route, told=bool(parked))
        if failed and not route_is_down and self._log_troubles:
            self._troubles.warn_of_some(route, name, len(failed), str(failed[-1][1]))
        if route_is_down:
            self._fail(route, name, [error for _, error in failed])
            return False
        if delivered and not outcome.was_refused and self._troubles.has(route):
            self._troubles.end(route, name)
            self._destinations.rejoin(route)
        return True

    def _count(self, delivered: int, parked: int, done: Drained) -> None:
        done.delivered += delivered
        done.parked += parked
        if delivered:
            self._metrics.incr(names.PUBLISHED, delivered, {"emitted_by": "relay"})
        if parked:
            self._metrics.incr(names.PARKED, parked)

    def _fail(self, route: Route, name: str, errors: Sequence[WorkflowEventsError | None]) -> None:
        """Back off from a route, or from its connection if that is what is wrong, and say why."""
        quietly = self._stopping or not self._log_troubles
        for error in errors:
            if isinstance(error, KafkaAuthenticationError):
                self._troubles.fail_connection(
                    route.conn_id, name, str(error), longest=REFUSED_BACKOFF_SECONDS, quietly=quietly
                )
                return
        self._troubles.fail(route, name, str(errors[0]), quietly=quietly)


def _in_environment(event: WorkflowEvent, environment: str | None) -> WorkflowEvent:
    if environment is None:
        return event
    metadata = event.metadata.model_copy(update={"environment": environment})
    return event.model_copy(update={"metadata": metadata})
