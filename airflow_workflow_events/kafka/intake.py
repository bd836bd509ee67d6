"""From messages to events, and from handled events to committed offsets.

Both consumers, the synchronous one and asyncio's, stand on this. Whoever hands the events out says of each
when it is handled, in order, and only then does the position move past it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from confluent_kafka import Message

from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events.codec import decode, decode_further
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.events.parsing import read_at_once
from airflow_workflow_events.events.seen import SeenEvents, SeenInMemory
from airflow_workflow_events.kafka.consumer_client import ConsumerClient
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.message_headers import headers_of
from airflow_workflow_events.kafka.poison import Poison
from airflow_workflow_events.kafka.positions import Place
from airflow_workflow_events.metrics import CONSUMED, REPEATED, Metrics

# How many messages are taken out of librdkafka's queue at once.
_FETCHED_AT_ONCE = 500
# Events that are read ahead take several times the room of their JSON, and reading dead letters takes long.
_PULLED_AT_ONCE = 500
_PULLED_BYTES = 1_048_576
_PULL_SECONDS = 0.5
# How long handling may take before what is handled is stored, and the group is heard.
_STORE_SECONDS = 0.5


class ReceivedEvent(NamedTuple):
    """An event and where it was read.

    Attributes:
        event: the event.
        topic: the topic.
        partition: the partition.
        offset: the offset in the partition.
        message: librdkafka's message: key, headers and all.
    """

    event: WorkflowEvent
    topic: str
    partition: int
    offset: int
    message: Message

    @property
    def timestamp_ms(self) -> int | None:
        """The record's timestamp, in milliseconds since the epoch; ``None`` where it has none."""
        kind, timestamp_ms = self.message.timestamp()
        return timestamp_ms if kind else None


# A named tuple's own constructor takes twice as long; once for each event, that shows.
_made: Callable[[type[ReceivedEvent], tuple[Any, ...]], ReceivedEvent] = tuple.__new__


class Passed(NamedTuple):
    """A message that is no event, or an event that nobody waits for: the position moves past it.

    Attributes:
        topic: the topic.
        partition: the partition.
        offset: the offset in the partition.
    """

    topic: str
    partition: int
    offset: int


Taken = ReceivedEvent | Passed
"""What becomes of a message that is taken in."""


class Intake:
    """Reads events that somebody waits for, and keeps count of what is handled.

    Args:
        client: the librdkafka consumer.
        events: which events to hand out.
        max_event_bytes: the most a message may have, in bytes.
        dead_letters: where to put what is no event, or ``None`` to skip it.
        seen: which events were handled already, or ``None`` to hand out repetitions.
        metrics: where to count.
    """

    def __init__(
        self,
        client: ConsumerClient,
        events: EventFilter,
        *,
        max_event_bytes: int,
        dead_letters: DeadLetterTopic | None,
        seen: SeenEvents | None,
        metrics: Metrics,
    ) -> None:
        self.client = client
        self.poison: Poison = Poison(dead_letters, metrics, lambda: client.stopped)
        self.repeated_count: int = 0
        # Where nothing is asked for, not even that is asked of each event.
        self._matches = events.matches if events.parameters else None
        self._max_event_bytes = max_event_bytes
        self._seen = seen
        self.remembers: bool = seen is not None
        """Whether :meth:`is_repeated` has to be asked."""
        self._metrics = metrics
        self._positions: dict[Place, int] = {}
        self._consumed = 0  # and not counted yet
        self._unread: deque[Message] = deque()
        self._moves = client.moves
        self._moves_before: dict[Place, int] = {}  # as they were when the unread messages were fetched
        self.behind_at: float = monotonic() + _STORE_SECONDS
        """When :meth:`keep_up` is due, by ``time.monotonic``: handling takes long."""

    def fetch(self, timeout: float | None) -> None:
        """Wait for messages to read, unless there are some. Everything that was read before is handled.

        Args:
            timeout: how long to wait, in seconds; ``None`` waits without end. Nor is there anything to read
                when the client is stopped.

        Raises:
            KafkaError: the client cannot go on.
        """
        self.client.check_usable()
        self.store()
        if not self._unread:
            self._unread.extend(self.client.next_batch(_FETCHED_AT_ONCE, timeout))
            self._moves_before = dict(self._moves)

    def read(self) -> Taken | None:
        """Return what the next message holds; ``None`` when there is no more, or the client is stopped.

        Raises:
            KafkaError: the dead-letter topic cannot take what has to go there.
        """
        # One by one, as they are wanted: an event that is dropped before the next one is read costs the
        # garbage collector nothing.
        while self._unread:
            message = self._unread[0]
            # They are None only in messages that were made by hand.
            topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
            if self._moves and self._has_moved((topic, partition)):
                self._unread.popleft()
                continue
            try:
                event = self._event_of(message)
            except EventDecodeError as error:
                if not self.poison.set_aside(message, error):
                    return None  # this message and those behind it stay unhandled
                event = None
            self._unread.popleft()
            if event is None:
                return Passed(topic, partition, offset)
            return _made(ReceivedEvent, (event, topic, partition, offset, message))
        return None

    def pull(self, timeout: float | None) -> list[Taken]:
        """Return what some of the next messages hold; empty when stopped or out of time.

        Args:
            timeout: how long to wait, in seconds; ``None`` waits without end.

        Raises:
            KafkaError: the client cannot go on, or the dead-letter topic cannot take what has to go there.
        """
        self.client.check_usable()
        try:
            if self._unread and monotonic() > self.behind_at:
                self.keep_up()
            self.fetch(timeout)
            return self._read_some()
        except BaseException as error:
            self.client.fail(error)
            raise

    @property
    def has_unread(self) -> bool:
        """Whether there are messages to read without waiting."""
        return bool(self._unread)

    @property
    def asks_elsewhere(self) -> bool:
        """Whether :meth:`is_repeated` and :meth:`handled` may take a while: what is seen is not in memory."""
        return self._seen is not None and not isinstance(self._seen, SeenInMemory)

    def has_moved(self, taken: Taken) -> bool:
        """Whether the partition was taken away since: it is delivered again, to whoever has it now."""
        return bool(self._moves) and self._has_moved((taken.topic, taken.partition))

    def is_repeated(self, event: WorkflowEvent) -> bool:
        """Whether the event was handled already; counts it if so."""
        if self._seen is None or event.event_id not in self._seen:
            return False
        self.repeated_count += 1
        self._metrics.incr(REPEATED)
        return True

    def move_past(self, taken: Taken) -> None:
        """Move past a message whose event was not handled: nobody wanted it, or it is a dead letter."""
        # A position in a partition that was taken away would set back whoever has it now.
        if not self.has_moved(taken):
            self._positions[taken.topic, taken.partition] = taken.offset + 1

    def handled(self, received: ReceivedEvent) -> None:
        """Move past an event that was handed out, and was handled for the first time."""
        # As move_past does; a call less for each event.
        if not (self._moves and self.has_moved(received)):
            self._positions[received.topic, received.partition] = received.offset + 1
        self._consumed += 1
        if self._seen is not None:
            self._seen.add(received.event.event_id)

    def keep_up(self) -> None:
        """Store what is handled, and take part in what the group does.

        A member whose events turn out slow would otherwise not be heard of.

        Raises:
            KafkaError: the client cannot go on.
        """
        self.store()
        self.client.serve()

    def store(self) -> None:
        """Store what is handled, for the next commit, and count it."""
        self.behind_at = monotonic() + _STORE_SECONDS
        positions, self._positions = self._positions, {}
        self.client.store(positions)
        consumed, self._consumed = self._consumed, 0
        if consumed:
            self._metrics.incr(CONSUMED, consumed)

    def close(self) -> None:
        """Commit what is handled and give the clients up."""
        self.store()
        self.client.close()
        self.poison.close()

    def _read_some(self) -> list[Taken]:
        taken: list[Taken] = []
        began, size_bytes = monotonic(), 0
        while len(taken) < _PULLED_AT_ONCE and size_bytes < _PULLED_BYTES:
            if (one := self.read()) is None:
                break
            taken.append(one)
            size_bytes += len(one.message.value() or b"") if isinstance(one, ReceivedEvent) else 0
            if monotonic() - began > _PULL_SECONDS:
                break
        return taken

    def _event_of(self, message: Message) -> WorkflowEvent | None:
        """Return a message's event if somebody waits for it.

        Raises:
            EventDecodeError: the message is no event.
        """
        value = message.value()
        if value is not None and len(value) > self._max_event_bytes:
            raise EventDecodeError(
                f"the message has {len(value):,} bytes, more than max_event_bytes={self._max_event_bytes:,}"
            )
        # An envelope is never taken for an event, so the headers, which cost as much as a tenth of all this,
        # are asked only where the value alone does not do.
        if type(value) is bytes:
            event = read_at_once(value)
            if event is None:
                event = decode_further(value, headers_of(message))
        else:
            event = decode(value, headers_of(message))
        return event if self._matches is None or self._matches(event) else None

    def _has_moved(self, place: Place) -> bool:
        return self._moves[place] != self._moves_before.get(place, 0)
