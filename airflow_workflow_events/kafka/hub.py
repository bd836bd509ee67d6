"""One consumer for everybody in a process who waits for events of a topic.

A thousand waiting tasks must not be a thousand consumers. Here they are a thousand subscriptions to one: it
reads every partition, without a group, and hands each event to the subscriptions that wait for it. A
subscription may begin in the past; the consumer then goes back there, and the others are not told again what
they have been told already. It goes back again only once it is where it was before, or else a stream of new
subscriptions would keep it in the past for ever.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from time import monotonic
from typing import TypeGuard

from airflow_workflow_events.errors import (
    ConfigurationError,
    ConsumerClosedError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    WorkflowEventsError,
    printable,
    text_of,
)
from airflow_workflow_events.kafka.consumer_client import ConsumerClient, Place
from airflow_workflow_events.kafka.intake import Intake, Passed, ReceivedEvent, Taken
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import (
    Delivery,
    Positions,
    Progress,
    Subscription,
    Subscriptions,
)

log: logging.Logger = logging.getLogger(__name__)

# How soon a new subscription is noticed by a thread that waits for messages.
_POLL_SECONDS = 0.1
_PROGRESS_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_JUST_BEGUN_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 1.0
# What a subscription may have waiting before it is left behind for a while, in events.
_MAX_BACKLOG = 1_000
# The offsets before an end may hold no record (compaction, markers of transactions): a partition that has
# been quiet for so long is taken to be where it was before going back.
_QUIET_SECONDS = 3.0
_LINGER_SECONDS = 30.0
_STOP_SECONDS = 5.0


class EventHub:
    """Reads a topic once for many subscriptions, in a thread of its own; safe to use from several threads.

    It waits for brokers that are away, and goes on where it was as soon as they are back. Where the
    configuration is wrong, or the brokers refuse the login or the topic, subscriptions that have not begun
    are told; those that have been served wait on, as it may be put right.

    Args:
        open_intake: makes the consumer: without a group, from the end of the topic, of all events. Called in
            the hub's thread, again after the client has failed.
        name: for the log and the thread, e.g. the topic.
        linger_seconds: how long it goes on without any subscription, in seconds; then it closes. Default 30.
    """

    def __init__(
        self, open_intake: Callable[[], Intake], name: str, *, linger_seconds: float = _LINGER_SECONDS
    ) -> None:
        self._open_intake = open_intake
        self._name = name
        self._linger_seconds = linger_seconds
        self._subscriptions = Subscriptions()
        self._next: dict[Place, int] = {}
        self._reached: dict[Place, int] = {}
        self._going_forward: dict[Place, float] = {}  # since when it brought nothing, after going back
        self._has_begun = False
        self._last_error: str | None = None
        self._client: ConsumerClient | None = None
        self._ask_at = 0.0
        self._progress_at = 0.0
        self._used_at = monotonic()
        self._lock = threading.Lock()  # nobody subscribes while it closes for want of subscriptions
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no subscriptions any more."""
        return self._closed.is_set()

    def subscribe(self, subscription: Subscription) -> None:
        """Begin to serve a subscription; returns at once.

        Raises:
            ConsumerClosedError: the hub is closed: make another.
        """
        with self._lock:
            if self._closed.is_set():
                raise ConsumerClosedError(f"the hub of {self._name} is closed: make another")
            self._subscriptions.add(subscription)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"workflow-events-hub-{self._name}", daemon=True
                )
                self._thread.start()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop serving a subscription. Once it returns, at most one delivery is under way."""
        self._subscriptions.remove(subscription)

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
        while not self._is_over():
            began = monotonic()
            try:
                self._serve()
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait shall not wait for nothing
                if monotonic() - began > _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS  # it worked for a while
                if _is_final(error):
                    self._refuse(error)
                self._report(error, pause)
                self._pause(pause, for_new=_is_final(error))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _pause(self, seconds: float, *, for_new: bool) -> None:
        """Wait, but not long where somebody new waits for an answer (``for_new``)."""
        soonest = min(seconds, _FIRST_PAUSE_SECONDS) if for_new else seconds
        self._closed.wait(soonest)
        for _ in range(round((seconds - soonest) / _POLL_SECONDS)):
            if self._subscriptions.new() or self._closed.wait(_POLL_SECONDS):
                return

    def trouble(self) -> str | None:
        """Return what keeps events from coming, if anything does: the last error."""
        if self._last_error is not None:
            return self._last_error
        client = self._client
        return (
            None if client is None or client.connection.was_accepted else client.connection.trouble_since(0)
        )

    def _report(self, error: Exception, pause: float) -> None:
        self._last_error = text_of(error) or type(error).__name__
        goes_on = "ends" if self.is_closed else f"goes on in {pause:g} s"
        if isinstance(error, WorkflowEventsError):
            log.error("waiting for events of %s %s: %s", self._name, goes_on, error)
        else:
            log.critical("waiting for events of %s %s", self._name, goes_on, exc_info=error)

    def _is_over(self) -> bool:
        """Close if nobody has waited for a while; return whether it is closed."""
        if self._subscriptions:
            self._used_at = monotonic()
        elif monotonic() - self._used_at >= self._linger_seconds:
            self._close_if_unused()
        return self._closed.is_set()

    def _close_if_unused(self) -> None:
        with self._lock:
            if not self._subscriptions:
                self._closed.set()

    def _refuse(self, error: WorkflowEventsError) -> None:
        """Tell those who have not begun, or only just. Those who were served wait on: it may be put right.

        That a topic may be seen but not read is told by the first fetch, right after they have begun.
        """
        refused = self._subscriptions.new()
        if isinstance(error, KafkaAuthorizationError):
            since = monotonic() - _JUST_BEGUN_SECONDS
            refused += [one for one in self._subscriptions.served() if one.began_at >= since]
        for one in refused:
            self._subscriptions.remove(one)
            self._deliver(one, [error])
        self._close_if_unused()  # who comes next gets a hub of its own, and an answer at once

    def _serve(self) -> None:
        intake = self._open_intake()
        client = self._client = intake.client
        try:
            client.check_connection(_CONNECT_SECONDS)
            if not client.is_settled:
                raise KafkaConnectionError("the brokers do not say where its partitions end")
            if self._has_begun:
                self._go_on(client)
            self._has_begun = True
            self._last_error = None
            while not self._is_over():
                self._notice_partitions(client)
                self._take_up(client)
                batch = intake.pull(_POLL_SECONDS)
                self._notice_partitions(client)
                self._hand_out(batch)
                self._report_progress()
        finally:
            intake.close()

    def _go_on(self, client: ConsumerClient) -> None:
        """Read on where the client before this one was."""
        if self._next and not client.begun:
            raise KafkaConnectionError("its partitions are gone")  # or not known yet to a broker that started
        # A partition that was not there before is new as a whole.
        self._next = {place: self._next.get(place, 0) for place in client.begun}
        client.assign_at(self._next)
        self._tell_of_partitions()

    def _notice_partitions(self, client: ConsumerClient) -> None:
        new = {place: at for place, at in client.begun.items() if place not in self._next}
        if new:
            self._next.update(new)
            self._tell_of_partitions()

    def _tell_of_partitions(self) -> None:
        for place, at in self._next.items():
            self._reached[place] = max(at, self._reached.get(place, at))
        # Before any event of theirs: who begins again after that event would not know that it was new.
        self._progress_at = 0.0
        self._report_progress()

    def _take_up(self, client: ConsumerClient) -> None:
        """Begin to serve the new, and those left behind that have caught up."""
        new, ready = self._subscriptions.new(), self._subscriptions.ready()
        latest = [one for one in new if one.start is StartFrom.LATEST]
        for one in latest:
            one.positions = dict(self._reached)
        self._begin(latest)
        others = [one for one in new if one.start is not StartFrom.LATEST]
        if not (others or ready) or self._is_in_the_past() or monotonic() < self._ask_at:
            return
        try:
            back_to = self._beginnings(client, others)
        except KafkaError as error:
            self._ask_at = monotonic() + _ASK_AGAIN_SECONDS
            log.warning("the brokers do not say yet where to begin in %s: %s", self._name, error)
            return
        for one in ready:
            _lower(back_to, {place: one.positions.get(place, 0) for place in self._next})
        self._go_back(client, back_to, but={*others, *ready})
        self._subscriptions.catch_up(ready)
        self._begin(others)

    def _is_in_the_past(self) -> bool:
        quiet_since = monotonic() - _QUIET_SECONDS
        return any(moved > quiet_since for moved in self._going_forward.values())

    def _beginnings(self, client: ConsumerClient, new: Iterable[Subscription]) -> dict[Place, int]:
        """Return how far back the hub has to go so that each of these gets what it waits for."""
        back_to: dict[Place, int] = {}
        moments = [one.start for one in new if isinstance(one.start, dt.datetime) and not one.wants_progress]
        if moments:
            # One question serves all: what is too old for the others is told by its timestamp.
            _lower(back_to, client.offsets_of(min(moments)))
        for one in new:
            one.positions = {}
            if isinstance(one.start, StartFrom):
                _lower(back_to, dict.fromkeys(self._next, 0))
            elif not isinstance(one.start, dt.datetime):
                one.positions = {**dict.fromkeys(self._next, 0), **self._existing(client, one.start)}
            elif one.wants_progress:  # where it is outlives the moment
                one.positions = client.offsets_of(one.start)
            _lower(back_to, one.positions)
        return back_to

    def _existing(self, client: ConsumerClient, positions: Positions) -> Positions:
        """Return positions, but for those behind their partition's end: that topic was made anew."""
        if all(at <= self._reached.get(place, at) for place, at in positions.items()):
            return positions
        ends = client.offsets_of(StartFrom.LATEST)
        return {place: at if at <= ends.get(place, at) else 0 for place, at in positions.items()}

    def _go_back(self, client: ConsumerClient, back_to: Positions, but: Collection[Subscription]) -> None:
        earlier = {place: at for place, at in back_to.items() if at < self._next.get(place, 0)}
        if not earlier:
            return
        for one in self._subscriptions.served():
            if one not in but:
                for place in earlier:
                    one.positions[place] = max(one.positions.get(place, 0), self._next[place])
        self._next.update(earlier)
        self._going_forward.update(dict.fromkeys(earlier, monotonic()))
        client.assign_at(self._next)

    def _begin(self, some: Iterable[Subscription]) -> None:
        for one in some:
            one.began_at = monotonic()
            if self._subscriptions.begin(one) and one.wants_progress:
                self._deliver(one, [Progress(one.served_to(self._next))])

    def _hand_out(self, batch: Iterable[Taken]) -> None:
        deliveries: dict[Subscription, list[Delivery]] = {}
        moved: set[Place] = set()
        for taken in batch:
            place = (taken.topic, taken.partition)
            if taken.offset < self._next.get(place, 0):
                self._begin_anew(place, taken.offset)
            if not isinstance(taken, Passed):
                self._match(taken, deliveries)
            self._next[place] = taken.offset + 1
            moved.add(place)
        for place in moved:
            self._reached[place] = max(self._reached.get(place, 0), self._next[place])
            if self._next[place] == self._reached[place]:
                self._going_forward.pop(place, None)
            elif place in self._going_forward:
                self._going_forward[place] = monotonic()
        for subscription, received in deliveries.items():
            self._deliver(subscription, received)

    def _begin_anew(self, place: Place, offset: int) -> None:
        """What comes now is new, whatever its offset: the partition was made anew, or has lost records."""
        log.warning("%s[%d] begins anew at offset %d: was the topic deleted?", *place, offset)
        for one in self._subscriptions.everybody():
            one.positions.pop(place, None)
        self._reached[place] = offset

    def _match(self, received: ReceivedEvent, deliveries: dict[Subscription, list[Delivery]]) -> None:
        for one in self._subscriptions.waiting_for(received.event.workflow_id):
            try:
                if not one.wants(received):
                    continue
            except Exception as error:  # noqa: BLE001 - what is wrong with one must not stop the others
                self._give_up(one, received, error, deliveries.pop(one, []))
                continue
            if one.backlog() + len(deliveries.get(one, ())) < _MAX_BACKLOG:
                deliveries.setdefault(one, []).append(received)
            else:
                # It is served again, from here, once it has taken up what it has.
                self._subscriptions.leave_behind(one, self._next, received)

    def _give_up(
        self, one: Subscription, received: ReceivedEvent, error: Exception, waiting: list[Delivery]
    ) -> None:
        """End a subscription that cannot tell whether it waits for an event."""
        self._subscriptions.remove(one)
        told = (
            error
            if isinstance(error, WorkflowEventsError)
            else ConfigurationError(
                f"what is waited for cannot be compared with event {printable(received.event.event_id)}: "
                f"{type(error).__name__}"
            )
        )
        self._deliver(one, [*waiting, told])

    def _deliver(self, one: Subscription, deliveries: Sequence[Delivery]) -> None:
        """Hand over; who cannot take it is served no more, and the others are."""
        try:
            one.deliver(deliveries)
        except Exception:
            self._subscriptions.remove(one)
            log.exception("a subscription of %s ends, as it does not take what it is told", self._name)

    def _report_progress(self) -> None:
        if monotonic() < self._progress_at:
            return
        self._progress_at = monotonic() + _PROGRESS_SECONDS
        for one in self._subscriptions.served():
            if one.wants_progress:
                self._deliver(one, [Progress(one.served_to(self._next))])


def _is_final(error: Exception) -> TypeGuard[WorkflowEventsError]:
    """Whether waiting does not help, but changing a setting, a grant or a login does."""
    if isinstance(error, ConfigurationError | KafkaAuthenticationError | KafkaAuthorizationError):
        return not error.retriable
    return isinstance(error, KafkaConnectionError) and not error.retriable  # the listener speaks otherwise


def _lower(positions: dict[Place, int], others: Positions) -> None:
    for place, at in others.items():
        positions[place] = min(at, positions.get(place, at))
