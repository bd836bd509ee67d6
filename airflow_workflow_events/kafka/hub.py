"""One consumer for everybody in a process who waits for events of a topic.

A thousand waiting tasks must not be a thousand consumers. Here they are a thousand subscriptions to one: it
reads every partition, without a group, and hands each event to the subscriptions that wait for it. A
subscription may begin in the past; the consumer then goes back there, and the others are not told again what
they have been told already.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

from airflow_workflow_events.errors import WorkflowEventsError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.consumer import received_event
from airflow_workflow_events.kafka.consumer_client import Place
from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent, Taken
from airflow_workflow_events.kafka.positions import StartFrom

log = logging.getLogger(__name__)

# How soon a new subscription is noticed by a thread that waits for messages.
_POLL_SECONDS = 0.1
_PROGRESS_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
# What a subscription may have waiting before it is left behind for a while, in events.
_MAX_BACKLOG = 1_000
_STOP_SECONDS = 5.0

Positions = Mapping[Place, int]
"""For each topic and partition the offset that comes next."""


class Progress(NamedTuple):
    """How far a subscription has been served: every event before these offsets was handed to it.

    Attributes:
        positions: for each topic and partition the offset that comes next.
    """

    positions: Positions


Delivery = ReceivedEvent | Progress


class Subscription:
    """Somebody who waits.

    Args:
        filters: the events waited for match one of these.
        start: where to begin: ``LATEST``, ``EARLIEST``, the first record since a moment, or offsets.
        deliver: called in the hub's thread with what has come, in order; must be quick and not raise.
        backlog: how many deliveries have not been taken up yet. Default: none ever.
        wants_progress: whether to be told how far it has been served, at first and now and then.
    """

    def __init__(
        self,
        filters: Sequence[EventFilter],
        start: StartFrom | dt.datetime | Positions,
        deliver: Callable[[Sequence[Delivery]], None],
        *,
        backlog: Callable[[], int] = lambda: 0,
        wants_progress: bool = False,
    ) -> None:
        self.filters = tuple(filters)
        self.start = start
        self.deliver = deliver
        self.backlog = backlog
        self.wants_progress = wants_progress
        self.since_ms = int(start.timestamp() * 1000) if isinstance(start, dt.datetime) else 0
        self.positions: dict[Place, int] = {}
        """What it has not been told yet begins here, where that is not where the hub is."""
        self.is_left_behind = False

    @property
    def workflow_ids(self) -> frozenset[str] | None:
        """The only workflows whose events can match, if they are known."""
        found: frozenset[str] = frozenset()
        for one in self.filters:
            if one.workflow_ids is None:
                return None
            found |= one.workflow_ids
        return found

    def wants(self, received: ReceivedEvent) -> bool:
        """Whether it waits for this event and has not had it."""
        return (
            not self.is_left_behind
            and received.offset >= self.positions.get((received.topic, received.partition), 0)
            and (not self.since_ms or received.timestamp_ms is None or received.timestamp_ms >= self.since_ms)
            and any(one.matches(received.event) for one in self.filters)
        )


class EventHub:
    """Reads a topic once for many subscriptions, in a thread of its own; safe to use from several threads.

    An outage of the brokers is sat out: the thread goes on where it was as soon as they are back.

    Args:
        open_intake: makes the consumer: without a group, from the end of the topic, of all events. Called in
            the hub's thread, again after the client has failed.
        name: for the log and the thread, e.g. the topic.
    """

    def __init__(self, open_intake: Callable[[], Intake], name: str) -> None:
        self._open_intake = open_intake
        self._name = name
        self._lock = threading.Lock()
        self._added: deque[Subscription] = deque()
        self._subscriptions: set[Subscription] = set()
        self._by_workflow: dict[str, set[Subscription]] = defaultdict(set)
        self._of_any_workflow: set[Subscription] = set()
        self._next: dict[Place, int] = {}
        self._progress_at = 0.0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    def subscribe(self, subscription: Subscription) -> None:
        """Begin to serve a subscription; returns at once."""
        with self._lock:
            self._subscriptions.add(subscription)
            self._added.append(subscription)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"workflow-events-hub-{self._name}", daemon=True
                )
                self._thread.start()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop serving a subscription. Once it returns, at most one delivery is under way."""
        with self._lock:
            self._subscriptions.discard(subscription)
            self._of_any_workflow.discard(subscription)
            for workflow_id in subscription.workflow_ids or ():
                of_workflow = self._by_workflow.get(workflow_id, set())
                of_workflow.discard(subscription)
                if not of_workflow:
                    self._by_workflow.pop(workflow_id, None)

    def close(self, *, wait: bool = True) -> None:
        """End the thread, which closes the consumer.

        Args:
            wait: whether to wait for it a little. Default ``True``.
        """
        self._closed.set()
        thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._closed.is_set():
            began = monotonic()
            try:
                self._serve()
            except Exception as error:
                if monotonic() - began > _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS  # it worked for a while
                level = logging.ERROR if isinstance(error, WorkflowEventsError) else logging.CRITICAL
                log.log(
                    level,
                    "waiting for events of %s goes on in %g s after: %s",
                    self._name,
                    pause,
                    error,
                    exc_info=None if isinstance(error, WorkflowEventsError) else error,
                )
                self._closed.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _serve(self) -> None:
        intake = self._open_intake()
        try:
            intake.client.check_connection(_CONNECT_SECONDS)
            if self._next:
                intake.client.assign_at(self._next)  # a client before this one got so far
            while not self._closed.is_set():
                self._take_up(intake)
                self._hand_out(intake.pull(_POLL_SECONDS))
                self._report_progress()
        finally:
            intake.close()

    def _take_up(self, intake: Intake) -> None:
        """Begin to serve what was added, and what was left behind and has caught up."""
        self._next.update({place: at for place, at in intake.client.begun.items() if place not in self._next})
        with self._lock:
            added = [one for one in self._added if one in self._subscriptions]
            self._added.clear()
            caught_up = [one for one in self._subscriptions if one.is_left_behind and not one.backlog()]
        if not added and not caught_up:
            return
        try:
            back_to = self._beginnings(intake, added)
        except BaseException:
            with self._lock:
                self._added.extendleft(added)  # the next client serves them
            raise
        for one in caught_up:
            one.is_left_behind = False
            _lower(back_to, one.positions)
        self._go_back(intake, back_to, but=[*added, *caught_up])
        with self._lock:
            for one in added:
                if one in self._subscriptions:
                    self._index(one)
        for one in added:
            if one.wants_progress:
                one.deliver([Progress({**self._next, **one.positions})])

    def _beginnings(self, intake: Intake, added: Iterable[Subscription]) -> dict[Place, int]:
        """Return how far back the hub has to go so that each of these gets what it waits for."""
        back_to: dict[Place, int] = {}
        moments = [one.start for one in added if isinstance(one.start, dt.datetime)]
        if moments:
            # One question serves all: what is too old for the others is told by its timestamp.
            _lower(back_to, intake.client.offsets_of(min(moments)))
        for one in added:
            if one.start is StartFrom.LATEST:
                one.positions = dict(self._next)
            elif isinstance(one.start, Mapping):
                # All of a partition that nothing is known of is new.
                one.positions = {place: one.start.get(place, 0) for place in {*self._next, *one.start}}
                _lower(back_to, one.positions)
            elif not isinstance(one.start, dt.datetime):
                _lower(back_to, dict.fromkeys(self._next, 0))
        return back_to

    def _go_back(self, intake: Intake, back_to: Positions, but: Iterable[Subscription]) -> None:
        earlier = {place: at for place, at in back_to.items() if at < self._next.get(place, 0)}
        if not earlier:
            return
        with self._lock:
            others = self._subscriptions - set(but)
        for one in others:
            if not one.is_left_behind:
                for place in earlier:
                    one.positions[place] = max(one.positions.get(place, 0), self._next[place])
        self._next.update(earlier)
        intake.client.assign_at(self._next)

    def _index(self, subscription: Subscription) -> None:
        workflow_ids = subscription.workflow_ids
        if workflow_ids is None:
            self._of_any_workflow.add(subscription)
        for workflow_id in workflow_ids or ():
            self._by_workflow[workflow_id].add(subscription)

    def _hand_out(self, batch: Iterable[Taken]) -> None:
        deliveries: dict[Subscription, list[Delivery]] = {}
        for message, event in batch:
            place = (str(message.topic()), int(message.partition() or 0))
            offset = int(message.offset() or 0)
            if event is not None:
                self._match(message, event, deliveries, place)
            self._next[place] = offset + 1
        for subscription, received in deliveries.items():
            subscription.deliver(received)

    def _match(
        self,
        message: object,
        event: WorkflowEvent,
        deliveries: dict[Subscription, list[Delivery]],
        place: Place,
    ) -> None:
        with self._lock:
            candidates = [*self._by_workflow.get(event.workflow_id, ()), *self._of_any_workflow]
        if not candidates:
            return
        received = received_event(message, event)
        for one in candidates:
            if not one.wants(received):
                continue
            if one.backlog() + len(deliveries.get(one, ())) >= _MAX_BACKLOG:
                # It is served again, from here, once it has taken up what it has.
                one.is_left_behind = True
                one.positions = {
                    known: max(at, one.positions.get(known, 0)) for known, at in self._next.items()
                }
                one.positions[place] = received.offset
            else:
                deliveries.setdefault(one, []).append(received)

    def _report_progress(self) -> None:
        now = monotonic()
        if now < self._progress_at:
            return
        self._progress_at = now + _PROGRESS_SECONDS
        with self._lock:
            told = [one for one in self._subscriptions if one.wants_progress and one not in self._added]
        for one in told:
            if not one.is_left_behind:
                positions = {place: max(at, one.positions.get(place, 0)) for place, at in self._next.items()}
                one.deliver([Progress(positions)])


def _lower(positions: dict[Place, int], others: Positions) -> None:
    for place, at in others.items():
        positions[place] = min(at, positions.get(place, at))
