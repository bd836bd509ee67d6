"""The headers of a message, also where confluent-kafka cannot read their names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller

from confluent_kafka import Message

from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events.cloudevents import Headers

# confluent-kafka cannot build a text from a name that is not UTF-8. It returns a list with a hole in it and
# an exception set, which Python notices at once only where it checks the result, as methodcaller does; called
# directly the exception comes up at some later call, and the hole crashes whoever touches it.
_headers_of: Callable[[Message], Headers | None] = methodcaller("headers")


def headers_of(message: Message) -> Headers | None:
    """Return a message's headers.

    Raises:
        EventDecodeError: the name of one is not UTF-8. The message has no headers from then on.
    """
    try:
        return _headers_of(message)
    except (SystemError, UnicodeDecodeError):
        message.set_headers([])  # nobody else may meet the hole
        raise EventDecodeError("the name of a header is not UTF-8") from None


def drop_unreadable(message: Message) -> None:
    """Take a message's headers away if the name of one is not UTF-8: before somebody asks for them."""
    with suppress(EventDecodeError):
        headers_of(message)
