"""Every error this package raises, under one root.

::

    WorkflowEventsError
    ├── EventValidationError (ValueError)       an event was built from values it cannot carry
    ├── EventSerializationError (ValueError)    a built event was changed into something JSON cannot carry
    ├── EventTooLargeError (ValueError)         an event is larger than the broker would take
    ├── EventDecodeError (ValueError)           a Kafka message is not a workflow event
    ├── ConfigurationError (ValueError)         a setting, connection or topic name is wrong
    ├── ProducerClosedError (RuntimeError)      the producer was used after ``close()``
    ├── ConsumerClosedError (RuntimeError)      the consumer was used after ``close()`` or a fork
    ├── ReentrantCallError (RuntimeError)       a delivery callback waited for another delivery
    ├── OutboxError                             the outbox did not accept an event
    │   ├── OutboxUnavailableError                   its database cannot be used
    │   └── OutboxFullError                          it has reached its bound
    └── KafkaError                              Kafka said no
        ├── KafkaConnectionError (ConnectionError)   no broker could be reached
        ├── KafkaAuthenticationError                 the broker refused the credentials or the certificate
        ├── KafkaAuthorizationError                  the credentials are good, the permission is missing
        ├── KafkaQueueFullError                      librdkafka's local queue has no room
        └── KafkaTimeoutError (TimeoutError)         time ran out; the outcome is unknown

``retriable`` says, as data, whether the same call may succeed later without anybody changing anything.
Building a model from wrong values raises pydantic's ``ValidationError`` as every pydantic model does; the
reason it carries for a payload value is an :class:`EventValidationError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Of a secret that is masked wherever it stands, in characters.
_MIN_INSIDE_WORDS = 6

__all__ = [
    "ConfigurationError",
    "ConsumerClosedError",
    "EventDecodeError",
    "EventSerializationError",
    "EventTooLargeError",
    "EventValidationError",
    "KafkaAuthenticationError",
    "KafkaAuthorizationError",
    "KafkaConnectionError",
    "KafkaError",
    "KafkaQueueFullError",
    "KafkaTimeoutError",
    "OutboxError",
    "OutboxFullError",
    "OutboxUnavailableError",
    "ProducerClosedError",
    "ReentrantCallError",
    "WorkflowEventsError",
]


class WorkflowEventsError(Exception):
    """Root of every error of this package.

    Attributes:
        retriable: ``True`` where the same call may succeed later without a change. Default ``False``.
    """

    retriable: bool = False


class EventValidationError(WorkflowEventsError, ValueError):
    """A value that JSON cannot carry was given to an event.

    Attributes:
        path: where the value stands, e.g. ``payload.data.rows[3].price``.
        reason: what is wrong with it and what to do, without the value itself.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class EventSerializationError(WorkflowEventsError, ValueError):
    """An event was changed, after it was built, into something that cannot be serialised."""


class EventTooLargeError(WorkflowEventsError, ValueError):
    """A serialised event exceeds the size limit.

    Attributes:
        event_id: the id of the event.
        size_bytes: its size as a Kafka record (key, value and headers), in bytes.
        limit_bytes: the limit, in bytes.
    """

    def __init__(self, event_id: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(event_id, size_bytes, limit_bytes)
        self.event_id = event_id
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"event {printable(self.event_id)} is {self.size_bytes:,} bytes as a Kafka record, more than the "
            f"limit of {self.limit_bytes:,}: put the bulk into an object store and its address into "
            "payload.data"
        )


class EventDecodeError(WorkflowEventsError, ValueError):
    """A Kafka message could not be read as a workflow event; the message says what was found instead."""


class ConfigurationError(WorkflowEventsError, ValueError):
    """A setting, a connection or a topic name is wrong; the message names it and says what would be right."""


class ProducerClosedError(WorkflowEventsError, RuntimeError):
    """The producer was used after ``close()``."""


class ConsumerClosedError(WorkflowEventsError, RuntimeError):
    """The consumer was used after ``close()``, or in the child of a fork."""


class ReentrantCallError(WorkflowEventsError, RuntimeError):
    """A delivery callback asked the producer to wait, which only the callback's own thread could end."""


class OutboxError(WorkflowEventsError):
    """The outbox did not accept an event, or could not be asked."""


class OutboxUnavailableError(OutboxError):
    """The outbox's database cannot be used: locked, full, read-only, corrupt, unreachable or too new."""

    retriable = True


class OutboxFullError(OutboxError):
    """The outbox has reached its bound in rows or bytes."""


class KafkaError(WorkflowEventsError):
    """Kafka, or librdkafka on its behalf, reported an error.

    Args:
        message: what happened and what to do.
        name: librdkafka's name of the error, e.g. ``"TOPIC_AUTHORIZATION_FAILED"``. Default ``None``.
        retriable: whether trying again may help. Default: what the class says.
    """

    def __init__(self, message: str, *, name: str | None = None, retriable: bool | None = None) -> None:
        super().__init__(message)
        self.name = name
        if retriable is not None:
            self.retriable = retriable

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by Exception's own pickling, and Airflow pickles exceptions.
        return (_rebuild, (type(self), self.args[0], self.name, self.retriable))


class KafkaConnectionError(KafkaError, ConnectionError):
    """No broker could be reached within the time given."""

    retriable = True


class KafkaAuthenticationError(KafkaError):
    """The broker refused the credentials, or one side refused the other's certificate."""


class KafkaAuthorizationError(KafkaError):
    """The credentials are good, but the permission on the topic or the cluster is missing."""


class KafkaQueueFullError(KafkaError):
    """The client's own queue is full because events come faster than the brokers take them."""

    retriable = True


class KafkaTimeoutError(KafkaError, TimeoutError):
    """Time ran out before the broker's delivery report came.

    The outcome is unknown: the event may still be delivered. Publishing the same event again is safe for
    every consumer that dedupes by ``event_id``.
    """

    retriable = True


def _rebuild(kind: type[KafkaError], message: str, name: str | None, retriable: bool) -> KafkaError:
    return kind(message, name=name, retriable=retriable)


def printable(text: object, max_characters: int = 1_000) -> str:
    """Return a text from outside in the form for a log line, an error text or a terminal: short, on one line.

    Line breaks, control characters and those that hide text or change its direction are written as escapes,
    so that nobody's event can forge a line of a log.

    Args:
        text: an id, a name or a message from an event; anything but a string is taken as ``str()`` has it.
        max_characters: the most to return, in characters. Default 1,000.
    """
    text = str(text)
    if not text[:max_characters].isprintable():
        text = (
            "".join(
                one if one.isprintable() else one.encode("unicode_escape").decode()
                for one in text[:max_characters]
            )
            + text[max_characters:]
        )
    return text if len(text) <= max_characters else f"{text[: max_characters - 3]}..."


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with each secret in it replaced by ``***``.

    A secret of fewer than six characters is replaced only where it stands by itself: inside words it would
    be found by chance, make the text unreadable, and be told by what is missing.

    Args:
        text: an error's text, for one.
        secrets: what may not be shown. Empty ones are passed over.
    """
    # The longest first, and all at once: one may be part of another, or of what stands for another.
    forms = [
        re.escape(secret) if len(secret) >= _MIN_INSIDE_WORDS else rf"(?<!\w){re.escape(secret)}(?!\w)"
        for secret in sorted(set(secrets) - {""}, key=len, reverse=True)
    ]
    return re.sub("|".join(forms), "***", text) if forms else text


def text_of(error: BaseException) -> str:
    """Return an exception's text, or its type's name where it cannot even say that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - anybody's code
        return type(error).__name__
