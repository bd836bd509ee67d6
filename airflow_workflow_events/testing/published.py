"""What a test has published, as a list of events that grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Self, overload

from confluent_kafka import Message

from airflow_workflow_events.errors import ConfigurationError, EventDecodeError, KafkaConnectionError
from airflow_workflow_events.events.codec import decode
from airflow_workflow_events.events.filters import EventFilter, Names
from airflow_workflow_events.events.json_values import JsonValue
from airflow_workflow_events.events.model import DEFAULT_TOPIC, WorkflowEvent
from airflow_workflow_events.testing.topic_reader import READ_SECONDS, Place, TopicReader

#: How long :meth:`PublishedEvents.wait_for` waits by default, in seconds.
WAIT_SECONDS = 10.0

_POLL_SECONDS = 0.1
# However short the time is, the broker gets so long to answer.
_ANSWER_SECONDS = 1.0
_LISTED_EVENTS = 50
_LISTED_CHARACTERS = 300


class PublishedEvents(Sequence[WorkflowEvent]):
    """The events that came to a topic since this was made; the fixture ``published_events``.

    A list, but for changing it: each look at it reads what the broker has confirmed until then, so that
    nothing needs awaiting whose confirmation was awaited by whoever published it, as the operator and the
    callbacks do. What is published in the background is awaited with :meth:`wait_for`.

    Events are in the order of their partition, and across partitions by the time of their publication. What
    is no workflow event is left out, and counted by the messages of errors.

    For use by one thread; give it up with :meth:`close` or ``with``.

    Args:
        bootstrap_servers: the broker, embedded or not.
        topic: the topic; it need not exist yet. Default ``"workflow-events"``.
        since: where to begin: offsets by topic and partition; what is not in it begins with its oldest
            message. Default ``None``: with what comes after this was made.

    Raises:
        KafkaConnectionError: the broker does not answer within 10 seconds. So does each method that reads.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        topic: str = DEFAULT_TOPIC,
        since: Mapping[Place, int] | None = None,
    ) -> None:
        self._servers = bootstrap_servers
        self._reader = TopicReader(bootstrap_servers, topic, since)
        self._others: dict[str, PublishedEvents] = {}
        self._messages: list[Message] = []
        self._events: list[WorkflowEvent] = []
        self._not_events: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def topic(self) -> str:
        """The topic."""
        return self._reader.topic

    def on(self, topic: str) -> PublishedEvents:
        """Return what came to another topic since this was made; the same object for the same topic.

        Args:
            topic: the topic; it need not exist yet.
        """
        if topic == self.topic:
            return self
        if topic not in self._others:
            self._others[topic] = PublishedEvents(self._servers, topic=topic, since=self._reader.since)
        return self._others[topic]

    def of_type(self, *event_types: str) -> list[WorkflowEvent]:
        """Return the events of these types.

        Args:
            *event_types: names or globs, one of which must match, e.g. ``"task.*"``.

        Raises:
            ConfigurationError: there is none.
        """
        wanted = EventFilter(event_type=event_types)
        return [event for event in self if wanted.matches(event)]

    def messages(self) -> list[Message]:
        """Return the events' Kafka messages, for a look at keys, headers, partitions and offsets."""
        self._read(monotonic() + READ_SECONDS)
        return list(self._messages)

    def wait_for(
        self,
        count: int = 1,
        timeout: float = WAIT_SECONDS,
        *,
        workflow_id: Names = None,
        workflow_run_id: Names = None,
        event_type: Names = None,
        source: Names = None,
        environment: Names = None,
        data: Mapping[str, JsonValue] | None = None,
    ) -> list[WorkflowEvent]:
        """Return the events that match, all there are, as soon as there are ``count`` of them.

        Args:
            count: how many to wait for. Default 1.
            timeout: how long to wait, in seconds. Default 10.
            workflow_id: only events of this workflow: a name, a glob, or several of which one must match.
            workflow_run_id: only events of this run; likewise.
            event_type: only events of this type; likewise.
            source: only events of this source; likewise.
            environment: only events of this environment; likewise.
            data: only events with this in ``payload.data``; see
                :class:`~airflow_workflow_events.events.filters.EventFilter`.

        Raises:
            AssertionError: they did not come in time; the message lists what did.
            ConfigurationError: a condition cannot be used, or ``count`` is less than 1.
        """
        __tracebackhide__ = True  # pytest shows the test's line, not these
        if count < 1:
            raise ConfigurationError(f"count is {count}: use 1 or more")
        wanted = EventFilter(
            workflow_id=workflow_id,
            workflow_run_id=workflow_run_id,
            event_type=event_type,
            source=source,
            environment=environment,
            data=data,
        )
        deadline = monotonic() + timeout
        while True:
            try:
                self._read(max(deadline, monotonic() + _ANSWER_SECONDS))
                unanswered = ""
            except KafkaConnectionError as error:
                unanswered = f"; {error}"
            found = [event for event in self._events if wanted.matches(event)]
            if len(found) >= count:
                return found
            if (remaining := deadline - monotonic()) <= 0:
                raise AssertionError(
                    f"{len(found)} of {count} event(s) {_conditions(wanted)}came to {self.topic} "
                    f"within {timeout:g} s{unanswered}\n{self._all_that_came()}"
                    # A broker that has just not answered is not asked again.
                    f"{'' if unanswered else self._what_came_elsewhere()}"
                )
            self._reader.wait(min(remaining, _POLL_SECONDS))

    def close(self) -> None:
        """Give the clients up. Calling it again does nothing."""
        self._reader.close()
        for other in self._others.values():
            other.close()

    @overload
    def __getitem__(self, index: int) -> WorkflowEvent: ...

    @overload
    def __getitem__(self, index: slice) -> list[WorkflowEvent]: ...

    def __getitem__(self, index: int | slice) -> WorkflowEvent | list[WorkflowEvent]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[WorkflowEvent]:
        return iter(self._now())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return self._now() == list(other) if isinstance(other, list | PublishedEvents) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # it grows, as a list does

    def __repr__(self) -> str:
        # What was read last: an error's message must not depend on the broker.
        return f"<{type(self).__name__} on {self.topic}: {', '.join(map(_name_of, self._events)) or 'none'}>"

    def _now(self) -> list[WorkflowEvent]:
        self._read(monotonic() + READ_SECONDS)
        return list(self._events)

    def _read(self, deadline: float) -> None:
        for message in self._reader.catch_up(deadline):
            try:
                event = decode(message.value(), message.headers())
            except EventDecodeError as error:
                self._not_events.append(f"  [{message.partition()}]@{message.offset()}: {error}")
            else:
                self._events.append(event)
                self._messages.append(message)

    def _all_that_came(self) -> str:
        lines = [f"{len(self._events)} event(s) came in all{':' if self._events else ''}"]
        lines += [f"  {_description_of(event)}" for event in self._events[:_LISTED_EVENTS]]
        if more := len(self._events) - _LISTED_EVENTS:
            lines += [f"  and {more} more"] if more > 0 else []
        if self._not_events:
            lines += ["and what is no workflow event:", *self._not_events[:_LISTED_EVENTS]]
        return "\n".join(lines)

    def _what_came_elsewhere(self) -> str:
        """Say which other topics have got messages, as a topic is easily mistaken for another."""
        counts: dict[str, int] = {}
        try:
            ends = self._reader.ends(monotonic() + READ_SECONDS)
        except KafkaConnectionError as error:
            return f"\non other topics: not known; {error}"
        for place, end in ends.items():
            topic, came = place[0], end - self._reader.since.get(place, 0)
            if came > 0 and topic != self.topic and not topic.startswith("__"):
                counts[topic] = counts.get(topic, 0) + came
        named = ", ".join(f"{topic} ({count} message(s))" for topic, count in sorted(counts.items()))
        return f"\non other topics: {named}" if named else ""


def _conditions(wanted: EventFilter) -> str:
    if not wanted.parameters:
        return ""
    return f"with {', '.join(f'{name}={value!r}' for name, value in wanted.parameters.items())} "


def _name_of(event: WorkflowEvent) -> str:
    return f"{event.event_type} of {event.ordering_key}"


def _description_of(event: WorkflowEvent) -> str:
    by = f", by the {event.metadata.emitted_by}" if event.metadata.emitted_by else ""
    known = {name: value for name, value in event.payload.data.items() if value is not None}
    return f"{_name_of(event)}{by}, in {event.metadata.environment}: {str(known)[:_LISTED_CHARACTERS]}"
