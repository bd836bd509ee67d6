"""From messages to events, and from handled events to committed offsets.

Both consumers, the synchronous one and asyncio's, stand on this. A batch is taken in whole; whoever
hands its events out says of each when it is handled, in order, and only then does the position move past it.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import NamedTuple

from confluent_kafka import Message

from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events.codec import decode
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.events.seen import SeenEvents
from airflow_workflow_events.kafka.consumer_client import ConsumerClient, Place
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.metrics import CONSUMED, DEAD_LETTERED, POISON, REPEATED, Metrics

log = logging.getLogger(__name__)

_MAX_BATCH = 1_000
_FIRST_BATCH = 100
# A batch is sized to take about this long, so that the client is polled and positions are stored in time
# however long the handling of one event takes.
_BATCH_SECONDS = 0.5
_WARNING_PAUSE_SECONDS = 60.0


class ReceivedEvent(NamedTuple):
    """An event and where it was read.

    Attributes:
        event: the event.
        topic: the topic.
        partition: the partition.
        offset: the offset in the partition.
        timestamp_ms: the record's timestamp, in milliseconds since the epoch; ``None`` where it has none.
        message: librdkafka's message: key, headers and all.
    """

    event: WorkflowEvent
    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    message: Message


class Taken(NamedTuple):
    """A message that was taken in.

    Attributes:
        message: the message.
        event: the event in it, if there is one and somebody waits for it.
    """

    message: Message
    event: WorkflowEvent | None


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
        self.poison_count = 0
        self.repeated_count = 0
        self._events = events
        self._max_event_bytes = max_event_bytes
        self._dead_letters = dead_letters
        self._seen = seen
        self._metrics = metrics
        self._positions: dict[Place, int] = {}
        self._stored_at = monotonic()
        self._size = _FIRST_BATCH
        self._handed_out = 0
        self._batch_began = monotonic()
        self._warn_again_at = 0.0
        self._unwarned = 0

    def pull(self, timeout: float | None) -> list[Taken]:
        """Return the next messages; empty when stopped or out of time. Everything before is handled.

        Args:
            timeout: how long to wait, in seconds; ``None`` waits without end.

        Raises:
            KafkaError: the client cannot go on, or the dead-letter topic cannot take what has to go there.
        """
        self._adapt_size()
        self.store()
        messages = self.client.next_batch(self._size, timeout)
        self._batch_began, self._handed_out = monotonic(), len(messages)
        taken: list[Taken] = []
        try:
            taken.extend(Taken(message, self._read(message)) for message in messages)
        except _StoppedError:
            pass  # this message and those behind it stay unhandled
        except BaseException as error:
            self.client.fail(error)
            raise
        return taken

    def is_repeated(self, event: WorkflowEvent) -> bool:
        """Whether the event was handled already; counts it if so."""
        if self._seen is None or event.event_id not in self._seen:
            return False
        self.repeated_count += 1
        self._metrics.incr(REPEATED)
        return True

    def handled(self, taken: Taken, *, is_new: bool) -> None:
        """Move past a message.

        Args:
            taken: the message.
            is_new: whether its event was handed out, and so is handled now for the first time.
        """
        message = taken.message
        self._positions[(message.topic(), message.partition())] = message.offset() + 1  # type: ignore[index,operator]
        if is_new and taken.event is not None:
            if self._seen is not None:
                self._seen.add(taken.event.event_id)
            self._metrics.incr(CONSUMED)

    @property
    def is_store_due(self) -> bool:
        """Whether positions were stored a while ago: the batch takes long."""
        return monotonic() - self._stored_at > _BATCH_SECONDS

    def store(self) -> None:
        """Store what is handled, for the next commit."""
        self._stored_at = monotonic()
        if self._positions:
            self.client.store(self._positions)
            self._positions.clear()

    def give_up(self, received: ReceivedEvent, failure: Exception, attempts: int) -> bool:
        """Put an event whose handling failed into the dead-letter topic, or stop before it.

        Returns:
            ``False`` where there is no dead-letter topic.

        Raises:
            KafkaError: the topic cannot take it.
        """
        if self._dead_letters is None:
            return False
        if self._dead_letter(self._dead_letters, received.message, failure, attempts):
            log.error(
                "event %s was sent to dead-letter topic %s after %d attempts: %s: %s",
                received.event.event_id,
                self._dead_letters.topic,
                attempts,
                type(failure).__name__,
                failure,
            )
        return True

    def close(self) -> None:
        """Commit what is handled and give the clients up."""
        if not self.client.closed:
            self.store()
        self.client.close()
        if self._dead_letters is not None:
            self._dead_letters.close()

    def _read(self, message: Message) -> WorkflowEvent | None:
        value = message.value()
        if value is not None and len(value) > self._max_event_bytes:
            self._set_aside(message, _too_large(len(value), self._max_event_bytes))
            return None
        try:
            event = decode(value, message.headers())
        except EventDecodeError as error:
            self._set_aside(message, error)
            return None
        return event if self._events.matches(event) else None

    def _set_aside(self, message: Message, error: EventDecodeError) -> None:
        letters = self._dead_letters
        if letters is not None and not self._dead_letter(letters, message, error, attempts=0):
            raise _StoppedError
        self.poison_count += 1
        self._metrics.incr(POISON)
        self._warn(message, error)

    def _dead_letter(
        self, letters: DeadLetterTopic, message: Message, error: Exception, attempts: int
    ) -> bool:
        """Send a message to the dead-letter topic; return whether it is there, as opposed to given up."""
        if not letters.send(message, error, attempts=attempts, is_stopped=lambda: self.client.stopped):
            return False
        self._metrics.incr(DEAD_LETTERED)
        return True

    def _warn(self, message: Message, error: EventDecodeError) -> None:
        """Log the first of a flood, and how many there were since the last one."""
        now = monotonic()
        if now < self._warn_again_at:
            self._unwarned += 1
            return
        done = (
            "skipped"
            if self._dead_letters is None
            else f"sent to dead-letter topic {self._dead_letters.topic}"
        )
        log.warning(
            "%s[%s]@%s is no workflow event and was %s: %s%s",
            message.topic(),
            message.partition(),
            message.offset(),
            done,
            error,
            f" ({self._unwarned} more since the last warning)" if self._unwarned else "",
        )
        self._warn_again_at, self._unwarned = now + _WARNING_PAUSE_SECONDS, 0

    def _adapt_size(self) -> None:
        if self._handed_out:
            seconds_each = max((monotonic() - self._batch_began) / self._handed_out, 1e-9)
            self._size = min(max(int(_BATCH_SECONDS / seconds_each), 1), _MAX_BATCH)


class _StoppedError(Exception):
    """The consumer stops, and a message was neither read nor set aside."""


def _too_large(size_bytes: int, limit_bytes: int) -> EventDecodeError:
    return EventDecodeError(
        f"the message has {size_bytes:,} bytes, more than max_event_bytes={limit_bytes:,}"
    )
