"""The dead-letter topic: where a consumer puts what it cannot read or handle, with the reason."""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any

import confluent_kafka

from airflow_workflow_events import forks
from airflow_workflow_events.errors import KafkaError, KafkaTimeoutError, printable, text_of
from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.client_log import CLIENT_LOG
from airflow_workflow_events.kafka.config import IDLE_OPTIONS, check_topic, without_secrets
from airflow_workflow_events.kafka.message_headers import drop_unreadable
from airflow_workflow_events.kafka.oauth import TOKEN_SECONDS, with_first_token
from airflow_workflow_events.kafka.reports import translate
from airflow_workflow_events.kafka.topics import connection_options

log: logging.Logger = logging.getLogger(__name__)

#: Headers that say why a message is where it is. The message's own key, value and headers stay as they were.
REASON_HEADER = "dead_letter_reason"
ERROR_HEADER = "dead_letter_error"
TOPIC_HEADER = "dead_letter_topic"
PARTITION_HEADER = "dead_letter_partition"
OFFSET_HEADER = "dead_letter_offset"
GROUP_HEADER = "dead_letter_group"
ATTEMPTS_HEADER = "dead_letter_attempts"
#: Set where the message was too large for the dead-letter topic, which then has it without its value.
TRUNCATED_HEADER = "dead_letter_truncated"

_MAX_REASON_CHARACTERS = 1_000
_WARN_AFTER_SECONDS = 5.0
_POLL_SECONDS = 0.1
_DELIVERY_TIMEOUT_MS = 30_000
_PAUSE_SECONDS = 1.0

# A broker that has no such topic, nor makes it, says so at once; one that is about to make it needs a moment.
_PROPAGATION_MS = 5_000
# The producer itself and the broker each say it in their own words.
_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_MSG_SIZE", "RECORD_LIST_TOO_LARGE"})

_Headers = list[tuple[str, str | bytes | None]]
_Content = tuple[bytes | str | None, bytes | str | None, _Headers]


class DeadLetterTopic:
    """Sends messages to a topic, and returns only when the broker has confirmed them.

    Args:
        config: librdkafka's configuration of the consumer; what it says about the connection is taken.
        topic: the dead-letter topic.
        group_id: the consumer's group, for the headers.

    Raises:
        ConfigurationError: the topic name is illegal.
    """

    def __init__(self, config: Mapping[str, Any], topic: str, group_id: str | None) -> None:
        self.topic: str = check_topic(topic)
        self._config = {
            **IDLE_OPTIONS,
            **connection_options(config),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": _DELIVERY_TIMEOUT_MS,
            "partitioner": "murmur2_random",
            "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
            # Whatever its topic took, this one has to take, and the reason besides.
            "message.max.bytes": 100_000_000,
        }
        self._group_id = group_id
        self._producer: confluent_kafka.Producer | None = None
        _used.add(self)

    def send(
        self,
        message: confluent_kafka.Message,
        error: Exception,
        *,
        attempts: int = 0,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Send a message and wait until the broker has it.

        While no broker can be reached it is tried again, without end: nothing is committed meanwhile, so
        nothing is lost.

        Args:
            message: what was consumed.
            error: why it could not be handled.
            attempts: how often it was tried. Default 0.
            is_stopped: whether to give up, asked again and again. Default: never.

        Returns:
            ``True`` once confirmed, ``False`` when given up because the consumer stops.

        Raises:
            KafkaError: the dead-letter topic cannot take it: it does not exist, may not be written to, ...
        """
        own, reason = self._headers(message, error, attempts)
        truncated: _Headers = [*reason, (TRUNCATED_HEADER, b"true")]
        # The reason takes room as well. Topic and offset say where the whole can be had.
        smaller: list[_Content] = [
            (message.key(), None, own + truncated),
            (message.key(), None, truncated),
            (None, None, truncated),
        ]
        content: _Content = (message.key(), message.value(), own + reason)
        while not is_stopped():
            failure = self._attempt(*content, is_stopped)
            if failure is None:
                return True
            if failure.name in _TOO_LARGE and smaller:
                content = smaller.pop(0)
                continue
            if is_stopped():
                break
            if not failure.retriable:
                raise type(failure)(
                    f"the dead-letter topic {self.topic} did not take a message: {failure}", name=failure.name
                )
            log.error(
                "the dead-letter topic %s did not take a message, trying again: %s", self.topic, failure
            )
            if self._producer is None and failure.name != "_TIMED_OUT":
                sleep(_PAUSE_SECONDS)  # whatever was fatal to one producer may be so to the next
        return False

    def leave_to_parent(self) -> None:
        """In the child of a fork: forget the parent's client without touching it."""
        if self._producer is not None:
            # Destroying it would wait for threads that do not exist here.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
            self._producer = None

    def close(self) -> None:
        """Give the client up. Everything that was sent has been confirmed."""
        self._producer = None

    def _attempt(
        self,
        key: bytes | str | None,
        value: bytes | str | None,
        headers: _Headers,
        is_stopped: Callable[[], bool],
    ) -> KafkaError | None:
        if self._producer is None:
            try:
                config = with_first_token(self._config, TOKEN_SECONDS, _note_token_failure)
            except KafkaError as error:
                return error
            with forks.critical_section():  # librdkafka and SSL set up what all clients share
                self._producer = confluent_kafka.Producer(config, logger=CLIENT_LOG)
        reports: list[confluent_kafka.KafkaError | None] = []
        try:
            self._producer.produce(
                self.topic,
                value=value,
                key=key,
                headers=headers,
                on_delivery=lambda error, _message: reports.append(error),
            )
        except confluent_kafka.KafkaException as error:
            return self._failed(error.args[0])
        began = monotonic()
        deadline, warn_at = began + _DELIVERY_TIMEOUT_MS / 1000 + _PAUSE_SECONDS, began + _WARN_AFTER_SECONDS
        while not reports and monotonic() < deadline and not is_stopped():
            try:
                cooperation.poll(self._producer.poll, _POLL_SECONDS, bool)
            except confluent_kafka.KafkaException as error:  # a fatal one, which nothing else tells of
                return self._failed(error.args[0])
            if monotonic() >= warn_at:
                log.warning(
                    "the dead-letter topic %s has not confirmed a message for %g s; reading waits for it",
                    self.topic,
                    _WARN_AFTER_SECONDS,
                )
                warn_at = deadline  # then there is an error to tell
        if not reports:
            self._producer = None  # its answer, should it still come, is nobody's any more
            return KafkaTimeoutError("no delivery report came in time", name="_TIMED_OUT")
        return None if reports[0] is None else self._failed(reports[0])

    def _failed(self, error: confluent_kafka.KafkaError) -> KafkaError:
        if error.fatal():  # this producer can send nothing more
            self._producer = None
        return translate(error, without_secrets(error.str(), self._config))

    def _headers(
        self, message: confluent_kafka.Message, error: Exception, attempts: int
    ) -> tuple[_Headers, _Headers]:
        """Return the message's own headers, and those that say why it is there."""
        drop_unreadable(message)
        own: Any = message.headers() or []  # confluent-kafka gives a list, whatever its type says
        reason = {
            REASON_HEADER: printable(text_of(error), _MAX_REASON_CHARACTERS) or type(error).__name__,
            ERROR_HEADER: type(error).__qualname__,
            TOPIC_HEADER: str(message.topic()),
            PARTITION_HEADER: str(message.partition()),
            OFFSET_HEADER: str(message.offset()),
            ATTEMPTS_HEADER: str(attempts),
        }
        if self._group_id is not None:
            reason[GROUP_HEADER] = self._group_id
        # A message that is replayed from here and fails again has the latest reason only.
        kept = [(name, value) for name, value in own if name not in {*reason, TRUNCATED_HEADER}]
        return kept, [(name, text.encode("utf-8", "replace")) for name, text in reason.items()]


def _note_token_failure(reason: str) -> None:
    log.warning("oauth_cb gave no new token, and is asked again: %s", reason)


_used: weakref.WeakSet[DeadLetterTopic] = weakref.WeakSet()


def _in_child() -> None:
    for one in list(_used):
        one.leave_to_parent()


forks.register(after_in_child=_in_child)
