"""Messages that are no workflow event: passed over with a counted warning, or sent to a dead-letter topic."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from confluent_kafka import Message

from airflow_workflow_events.errors import EventDecodeError, printable, text_of
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.metrics import DEAD_LETTERED, POISON, Metrics

log: logging.Logger = logging.getLogger(__name__)

_WARNING_PAUSE_SECONDS = 60.0


class Poison:
    """Where messages go that cannot be read, or whose event cannot be handled.

    Args:
        dead_letters: the topic to put them on, or ``None`` to skip what cannot be read.
        metrics: where to count.
        is_stopped: whether to give up waiting for the dead-letter topic.
    """

    def __init__(
        self, dead_letters: DeadLetterTopic | None, metrics: Metrics, is_stopped: Callable[[], bool]
    ) -> None:
        self.count: int = 0
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._is_stopped = is_stopped
        self._warn_again_at = 0.0
        self._unwarned = 0

    def set_aside(self, message: Message, error: EventDecodeError) -> bool:
        """Deal with a message that is no event; return whether it is done, as opposed to given up.

        Raises:
            KafkaError: the dead-letter topic cannot take it.
        """
        if self._dead_letters is not None and not self._send(self._dead_letters, message, error, attempts=0):
            return False
        self.count += 1
        self._metrics.incr(POISON)
        self._warn(message, error)
        return True

    def give_up(self, message: Message, event_id: str, failure: Exception, attempts: int) -> bool:
        """Put an event whose handling failed into the dead-letter topic, or stop before it.

        Returns:
            ``False`` where there is no dead-letter topic.

        Raises:
            KafkaError: the topic cannot take it.
        """
        if self._dead_letters is None:
            return False
        if self._send(self._dead_letters, message, failure, attempts):
            log.error(
                "event %s was sent to dead-letter topic %s after %d attempts: %s: %s",
                printable(event_id),
                self._dead_letters.topic,
                attempts,
                type(failure).__name__,
                printable(text_of(failure)),
            )
        return True

    def close(self) -> None:
        """Say how many messages were not spoken of, and give the dead-letter topic's client up."""
        if self._unwarned:
            log.warning("%d more message(s) were no workflow event since the last warning", self._unwarned)
            self._unwarned = 0
        if self._dead_letters is not None:
            self._dead_letters.close()

    def _send(self, letters: DeadLetterTopic, message: Message, error: Exception, attempts: int) -> bool:
        if not letters.send(message, error, attempts=attempts, is_stopped=self._is_stopped):
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
            printable(text_of(error)),
            f" ({self._unwarned} more since the last warning)" if self._unwarned else "",
        )
        self._warn_again_at, self._unwarned = now + _WARNING_PAUSE_SECONDS, 0
