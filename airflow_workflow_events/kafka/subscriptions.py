"""Who waits for events at a hub: what they wait for, and what they have been told."""

from __future__ import annotations

import datetime as dt
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from airflow_workflow_events.errors import WorkflowEventsError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.consumer_client import Place
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom

Positions = Mapping[Place, int]
"""For each topic and partition the offset that comes next."""


class Progress(NamedTuple):
    """How far a subscription has been served: every event before these offsets was handed to it.

    Attributes:
        positions: for each topic and partition the offset that comes next.
    """

    positions: Positions


Delivery = ReceivedEvent | Progress | WorkflowEventsError
"""What a subscription is told. The error is the last: waiting is in vain."""


class Subscription:
    """Somebody who waits.

    Args:
        filters: the events waited for match one of these.
        start: where to begin: ``LATEST``, ``EARLIEST``, the records since a moment, or offsets; of a
            partition that is not among these everything is new.
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
        self.filters: tuple[EventFilter, ...] = tuple(filters)
        self.start = start
        self.deliver = deliver
        self.backlog = backlog
        self.wants_progress = wants_progress
        self.since_ms: int = int(start.timestamp() * 1000) if isinstance(start, dt.datetime) else 0
        self.positions: dict[Place, int] = {}
        """What it has not been told yet begins here, where that is not where the hub is."""
        self.is_left_behind: bool = False
        self.began_at: float = 0.0
        """When it was first served, in seconds of the monotonic clock."""

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

    def served_to(self, hub: Positions) -> dict[Place, int]:
        """Return what comes next for it, while the hub is at these offsets."""
        reached = {place: max(at, self.positions.get(place, 0)) for place, at in hub.items()}
        return {**self.positions, **reached}


class Subscriptions:
    """Those who wait at a hub, found by the workflow they wait for; safe to use from several threads.

    A subscription is new, then it has begun, and meanwhile it may be left behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[Subscription] = set()
        self._new: dict[Subscription, None] = {}  # in the order in which they came
        self._left_behind: set[Subscription] = set()
        self._by_workflow: dict[str, set[Subscription]] = defaultdict(set)
        self._of_any_workflow: set[Subscription] = set()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, one: Subscription) -> None:
        """Add a new one."""
        with self._lock:
            self._all.add(one)
            self._new[one] = None

    def remove(self, one: Subscription) -> None:
        """Forget one, if it is known."""
        with self._lock:
            self._all.discard(one)
            self._new.pop(one, None)
            self._left_behind.discard(one)
            self._of_any_workflow.discard(one)
            for workflow_id in one.workflow_ids or ():
                of_workflow = self._by_workflow.get(workflow_id, set())
                of_workflow.discard(one)
                if not of_workflow:
                    self._by_workflow.pop(workflow_id, None)

    def begin(self, one: Subscription) -> bool:
        """Let events find it from now on; return whether it is still there."""
        with self._lock:
            if one not in self._all:
                return False
            self._new.pop(one, None)
            workflow_ids = one.workflow_ids
            if workflow_ids is None:
                self._of_any_workflow.add(one)
            for workflow_id in workflow_ids or ():
                self._by_workflow[workflow_id].add(one)
            return True

    def leave_behind(self, one: Subscription, hub: Positions, received: ReceivedEvent) -> None:
        """Serve one no more for now; it goes on with this event in its partition."""
        one.positions = {**one.served_to(hub), (received.topic, received.partition): received.offset}
        one.is_left_behind = True
        with self._lock:
            if one in self._all:
                self._left_behind.add(one)

    def catch_up(self, some: Iterable[Subscription]) -> None:
        """Serve some again that were left behind."""
        with self._lock:
            for one in some:
                one.is_left_behind = False
                self._left_behind.discard(one)

    def waiting_for(self, workflow_id: str) -> list[Subscription]:
        """Return those for whom an event of this workflow may be."""
        with self._lock:
            return [*self._by_workflow.get(workflow_id, ()), *self._of_any_workflow]

    def everybody(self) -> list[Subscription]:
        """Return all of them."""
        with self._lock:
            return list(self._all)

    def new(self) -> list[Subscription]:
        """Return those that have not begun."""
        with self._lock:
            return list(self._new)

    def ready(self) -> list[Subscription]:
        """Return those that were left behind and have taken up what they had."""
        with self._lock:
            return [one for one in self._left_behind if not one.backlog()]

    def served(self) -> list[Subscription]:
        """Return those that have begun and are not left behind."""
        with self._lock:
            return list(self._all - self._new.keys() - self._left_behind)
