"""A relay in threads of its own, for processes that live long and must never wait.

One thread looks at the outbox, says that the relay lives, and hands what waits to workers, by route. It waits
for the outbox's database alone; the workers wait for connections to be looked up and for brokers.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Self

from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import (
    EventSerializationError,
    OutboxError,
    OutboxFullError,
    WorkflowEventsError,
    printable,
)
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.metrics import Metrics, NoMetrics
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE, Route
from airflow_workflow_events.outbox.gauges import report_gauges
from airflow_workflow_events.outbox.relay import Drained, Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.outbox.workers import Workers

log: logging.Logger = logging.getLogger(__name__)

#: How often the outbox is looked at for what other processes have appended, in seconds.
POLL_SECONDS = 0.5
#: How long ``with BackgroundRelay(...)`` may deliver at its end, in seconds.
EXIT_SECONDS = 10.0
#: A relay not heard of for so long is taken for dead, in seconds; it says that it lives every two seconds.
SILENCE_SECONDS = 20.0
#: How many routes are delivered to at once, and as many again of those whose last attempt failed; those that
#: hang do not count.
MOST_WORKERS = 16

_LINGER_SECONDS = 0.01
_BEAT_SECONDS = 2.0
_HOUSEKEEPING_SECONDS = 10.0
# A delivery is given up only after longer; whoever looks at the log should know before.
_SLOW_SECONDS = 8.0
# Events that the outbox did not accept wait here, in memory, for the thread to attempt them directly.
_MAX_UNACCEPTED = 10_000
_DIRECT_BATCH = 250
# How many ids a line of the log may have.
_MOST_IDS = 50
_DIRECT_SECONDS = 5.0
# While the outbox cannot be used, the thread that appends must not wait for its locks again and again.
_SPARED_SECONDS = 5.0
# The same trouble is logged again only after it has not been seen for so long.
_SAME_TROUBLE_SECONDS = 60.0


_Kept = tuple[WorkflowEvent, Route, bool]
"""An event, where it goes, and whether a connection's environment replaces its own."""


class BackgroundRelay:
    """Accepts events at once and delivers them from its own threads; accepting never raises or waits long.

    Use it with ``with``, or call :meth:`start` and :meth:`stop`. After a fork the child makes one of its own.

    Args:
        outbox: the outbox.
        relay: delivers; used by these threads alone.
        metrics: where to count. Default: nowhere.
        poll_seconds: how often to look for what other processes have appended, in seconds. Default 0.5.
        slow_seconds: after how long a first attempt without an answer is a warning, in seconds. Default 8.
    """

    def __init__(
        self,
        outbox: Outbox,
        relay: Relay,
        *,
        metrics: Metrics | None = None,
        poll_seconds: float = POLL_SECONDS,
        slow_seconds: float = _SLOW_SECONDS,
    ) -> None:
        self._outbox = outbox
        self._relay = relay
        self._metrics = metrics or NoMetrics()
        self._poll_seconds = poll_seconds
        self._slow_seconds = slow_seconds
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._out_of_time = threading.Event()
        self._keeps_no_more = False
        self._unaccepted: deque[_Kept] = deque()
        self._unaccepted_lock = threading.Lock()
        self._spared_until = 0.0
        self._troubles: dict[str, float] = {}
        self._troubles_lock = threading.Lock()
        self._next_beat = self._next_housekeeping = 0.0
        self._is_prepared = False
        self._workers = Workers("workflow-events-delivery", MOST_WORKERS)
        self._of_troubled = Workers("workflow-events-retry", MOST_WORKERS)
        self._thread = threading.Thread(target=self._run, name="workflow-events-relay", daemon=True)
        self._pid = os.getpid()

    @property
    def running(self) -> bool:
        """Whether its thread runs, in this process."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(EXIT_SECONDS)

    def accept(
        self, event: WorkflowEvent, route: Route = DEFAULT_ROUTE, *, environment_is_default: bool = False
    ) -> bool:
        """Put an event into the outbox, or, where that fails, keep it for a direct attempt by the thread.

        Args:
            event: the event.
            route: where to. Default: the default connection and its topic.
            environment_is_default: whether the destination's environment, if it has one, replaces the
                event's. Default ``False``.

        Returns:
            Whether the outbox accepted it, and so whether it survives the end of this process.
        """
        if self._pid != os.getpid():
            return self._accept_in_child(event, route, environment_is_default)
        accepted = False
        if monotonic() >= self._spared_until:
            try:
                self._append((event, route, environment_is_default))
                accepted = True
            except OutboxError as error:
                self._spared_until = monotonic() + _SPARED_SECONDS
                self._report_trouble(error)
            except EventSerializationError as error:
                self._give_up(error)
                return False
        if not accepted:
            self._keep((event, route, environment_is_default))
        self._wake.set()
        return accepted

    def _accept_in_child(self, event: WorkflowEvent, route: Route, environment_is_default: bool) -> bool:
        """In the child of a fork: there is no thread, and a lock may be that of one in the parent."""
        try:
            self._append((event, route, environment_is_default))
        except WorkflowEventsError as error:
            self._metrics.incr(names.FAILED)
            log.error(
                "event %s was not accepted, and a forked process has no relay: %s",
                printable(event.event_id),
                error,
            )
            return False
        return True

    def stop(self, timeout: float) -> bool:
        """Deliver for at most ``timeout`` seconds, then end; what is left is in the outbox for other relays.

        What the outbox has not accepted either is lost with this process: it is logged and counted.

        Returns:
            Whether the thread has ended.
        """
        deadline = monotonic() + timeout
        self._stopped.set()
        self._wake.set()
        self._thread.join(max(deadline - monotonic(), 0.0) * 0.8)
        self._out_of_time.set()
        if self._thread.is_alive():
            self._relay.stop()
            self._thread.join(max(deadline - monotonic(), 0.0))
        if self._pid == os.getpid():
            self._lose_unaccepted()
        return not self._thread.is_alive()

    def _lose_unaccepted(self) -> None:
        with self._unaccepted_lock:
            self._keeps_no_more = True
            lost = [event for event, _, _ in self._unaccepted]
            self._unaccepted.clear()
        if not lost:
            return
        self._metrics.incr(names.FAILED, len(lost), {"emitted_by": "relay"})
        log.error(
            "%d event(s) are lost, as neither the outbox nor Kafka took them before the relay ended: %s%s",
            len(lost),
            ", ".join(printable(event.event_id, 100) for event in lost[:_MOST_IDS]),
            ", ..." if len(lost) > _MOST_IDS else "",
        )

    def _append(self, kept: _Kept) -> None:
        event, route, environment_is_default = kept
        dropped = self._outbox.append(event, route, environment_is_default=environment_is_default)
        self._metrics.incr(names.ACCEPTED)
        if dropped:
            log.error("the outbox was full: its %d oldest event(s) were dropped", dropped)
            self._metrics.incr(names.DROPPED, dropped)

    def _give_up(self, error: EventSerializationError) -> None:
        """Count and log an event that was changed after it was built into something nobody can deliver."""
        self._metrics.incr(names.FAILED)
        log.error("%s", error)

    def _keep(self, kept: _Kept) -> None:
        lost = None
        with self._unaccepted_lock:
            if self._keeps_no_more:
                lost = kept[0]
            else:
                if len(self._unaccepted) >= _MAX_UNACCEPTED:
                    lost = self._unaccepted.popleft()[0]
                self._unaccepted.append(kept)
        if lost is not None:
            self._metrics.incr(names.DROPPED)
            log.error("event %s is lost: neither the outbox nor Kafka takes events", printable(lost.event_id))

    def _done_with(self, done: Sequence[_Kept]) -> None:
        places = {id(kept) for kept in done}
        with self._unaccepted_lock:
            left = [kept for kept in self._unaccepted if id(kept) not in places]
            self._unaccepted.clear()
            self._unaccepted.extend(left)

    def _report_trouble(self, error: OutboxError) -> None:
        """Count each failure, and log it when it is a new one."""
        self._metrics.incr(names.DROPPED if isinstance(error, OutboxFullError) else names.OUTBOX_ERRORS)
        text, now = str(error), monotonic()
        with self._troubles_lock:
            # A round that only reads works on a full disk and on a locked file: no end of the trouble.
            recent = {old: at for old, at in self._troubles.items() if now - at < _SAME_TROUBLE_SECONDS}
            is_new = text not in recent
            self._troubles = recent | {text: now}
        if is_new:
            log.error("%s; new events are attempted directly", text)

    @property
    def owner(self) -> str:
        """What it is called among the relays of its outbox."""
        return self._relay.owner

    def look_again(self) -> None:
        """Look the connections up again, and attempt at once what backs off; from any thread.

        Not from a signal handler: it takes locks.
        """
        self._relay.look_again()
        self._wake.set()

    def _run(self) -> None:
        while True:
            stopping = self._stopped.is_set()
            try:
                self._look_after()
                self._hand_out()
            except OutboxError as error:
                self._report_trouble(error)
            except Exception:
                log.exception("the relay goes on after")
            if stopping:
                break
            if self._wake.wait(self._poll_seconds):
                # Events come in bursts, and whoever appends them should not have to share the database and
                # the interpreter with the delivery of the first.
                self._stopped.wait(_LINGER_SECONDS)
            self._wake.clear()
        try:
            self._finish()
        except OutboxError as error:
            log.debug("the relay could not sign off: %s", error)

    def _finish(self) -> None:
        if self._unaccepted:
            self._relay.look_again()  # there is no later: what backs off is attempted once more
        for _ in range(2):  # what was kept in memory may be in the outbox only after the first
            self._wait_for_workers()
            while self._unaccepted and not self._out_of_time.wait(_LINGER_SECONDS):
                self._hand_out_if_possible()
                self._wait_for_workers(self._poll_seconds)
            self._hand_out_if_possible()
        self._wait_for_workers()
        self._relay.close()
        self._outbox.retire(self._relay.owner)
        self._keep_house()

    def _wait_for_workers(self, timeout: float | None = None) -> None:
        for workers in (self._workers, self._of_troubled):
            workers.wait_until_idle(timeout)

    def _hand_out_if_possible(self) -> None:
        try:
            self._hand_out()
        except OutboxError as error:
            self._report_trouble(error)

    def _hand_out(self) -> None:
        """Have workers deliver what waits: one a route, so that one that hangs keeps no other waiting."""
        with self._unaccepted_lock:
            unaccepted = {route for _, route, _ in self._unaccepted}
        for route in unaccepted:
            self._of_troubled.submit(("unaccepted", route), partial(self._attempt_unaccepted, route))
        routes = self._outbox.routes()
        for route in routes:
            if not self._relay.holds_back(route):
                workers = self._of_troubled if self._relay.is_in_trouble(route) else self._workers
                workers.submit(route, partial(self._drain, route))
        if not self._is_prepared:
            self._is_prepared = self._relay.is_prepared()
            if not self._is_prepared and all(route.conn_id is not None for route in routes):
                self._workers.submit("connection", self._relay.prepare)

    def _drain(self, route: Route) -> None:
        try:
            self._relay.drain_route(route, Drained())
        except OutboxError as error:
            self._report_trouble(error)

    def _attempt_unaccepted(self, route: Route) -> None:
        """Attempt what the outbox did not accept: by the outbox if it works again, else directly."""
        while True:
            with self._unaccepted_lock:
                waiting = [kept for kept in self._unaccepted if kept[1] == route]
            batch = waiting[:_DIRECT_BATCH]
            done = self._append_again(batch)
            if batch and not done:
                finished = self._relay.deliver_directly(
                    route, [(event, is_default) for event, _, is_default in batch], _DIRECT_SECONDS
                )
                done = [kept for kept, is_done in zip(batch, finished, strict=True) if is_done]
            if not done:
                return
            self._done_with(done)

    def _append_again(self, batch: Sequence[_Kept]) -> list[_Kept]:
        """Put events into the outbox, as far as it takes them; return those that need no other attempt."""
        done: list[_Kept] = []
        for kept in batch:
            try:
                self._append(kept)
            except EventSerializationError as error:
                self._give_up(error)
            except OutboxError:
                break
            done.append(kept)
        return done

    def _look_after(self) -> None:
        now = monotonic()
        self._relay.warn_of_slow(self._slow_seconds)
        # Only a relay that can make its producer says that others need not attempt by themselves.
        if now >= self._next_beat and self._is_prepared:
            self._next_beat = now + _BEAT_SECONDS
            self._outbox.beat(self._relay.owner, socket.gethostname(), os.getpid())
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
            self._keep_house()

    def _keep_house(self) -> None:
        self._outbox.database.look_at_file()
        if expired := self._outbox.expire():
            self._metrics.incr(names.PARKED, expired)
            log.error("%d event(s) are parked: they waited in the outbox for too long", expired)
        self._outbox.database.checkpoint()
        report_gauges(self._outbox, self._metrics, SILENCE_SECONDS)
