"""The CloudEvents 1.0 view of an event: context attributes, Kafka headers, the structured envelope.

Rules: CloudEvents 1.0.2, and its Kafka protocol binding (attributes as ``ce_`` headers in binary mode, one
``application/cloudevents+json`` document in structured mode).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from pydantic_core import to_json

from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events.model import WorkflowEvent

SPEC_VERSION = "1.0"
JSON_CONTENT_TYPE = "application/json"
STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
CONTENT_TYPE_HEADER = "content-type"
TRACEPARENT_HEADER = "traceparent"

Headers = list[tuple[str, str | bytes | None]]
"""Kafka headers as confluent-kafka takes and gives them, in order."""


class CloudEventsMode(StrEnum):
    """How an event is laid out in a Kafka message."""

    BINARY = "binary"
    """The event's JSON is the value, untouched; ``ce_`` headers repeat what routers need. The default."""
    STRUCTURED = "structured"
    """The value is a CloudEvents envelope with the event's JSON as its ``data``."""
    OFF = "off"
    """The event's JSON is the value, without any CloudEvents header."""


_FIXED_HEADERS: tuple[tuple[str, str | bytes], ...] = (
    (CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode()),
    ("ce_specversion", SPEC_VERSION.encode()),
)


def source_uri(event: WorkflowEvent) -> str:
    """Return CloudEvents' ``source``, a URI reference: ``airflow``, or ``airflow/eu`` with an instance."""
    return _uri(event.source, event.metadata.source_instance)


def _uri(source: str, instance: str | None) -> str:
    quoted = quote(str(source), safe="/:.-_~")
    return quoted if instance is None else f"{quoted}/{quote(instance, safe='/:.-_~')}"


def timestamp_text(event: WorkflowEvent) -> str:
    """Return the event's time as RFC 3339, written as in the JSON: ``2026-11-23T02:44:35.216843Z``."""
    return to_json(event.timestamp)[1:-1].decode()


# Inside a string of the JSON the quotes would be escaped: the first match is the field.
_TIMESTAMP_KEY = b'"timestamp":"'


# One deployment has few of them, while quoting and encoding would be repeated for every event.
@lru_cache(maxsize=1024)
def _routing_headers(
    source: str, instance: str | None, kind: str
) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    return ("ce_source", _uri(source, instance).encode()), ("ce_type", str(kind).encode())


def binary_headers(event: WorkflowEvent, event_json: bytes, ordering_key: bytes) -> Headers:
    """Return the headers of a binary mode message.

    Args:
        event: the event.
        event_json: its JSON, whose time is taken over letter for letter.
        ordering_key: its encoded ordering key, which is also CloudEvents' ``subject``.
    """
    start = event_json.index(_TIMESTAMP_KEY) + len(_TIMESTAMP_KEY)
    # Bytes, because the client copies bytes as they are and encodes a string at every produce.
    headers: Headers = [
        *_FIXED_HEADERS,
        ("ce_id", event.event_id.encode()),
        *_routing_headers(event.source, event.metadata.source_instance, event.event_type),
        ("ce_time", event_json[start : event_json.index(b'"', start)]),
        ("ce_subject", ordering_key),
    ]
    return with_traceparent(event, headers)


def structured_headers(event: WorkflowEvent) -> Headers:
    """Return the headers of a structured mode message.

    There is no ``ce_`` header among them: the official Python SDK takes a message that has any for a binary
    one.
    """
    return with_traceparent(event, [(CONTENT_TYPE_HEADER, STRUCTURED_CONTENT_TYPE.encode())])


def with_traceparent(event: WorkflowEvent, headers: Headers) -> Headers:
    """Add the W3C trace context where the event has one, so that tracing tools see it in any mode."""
    traceparent = event.metadata.traceparent
    if traceparent is not None:
        headers.append((TRACEPARENT_HEADER, traceparent.encode()))
    return headers


def structured_value(event: WorkflowEvent, event_json: bytes, ordering_key: str) -> bytes:
    """Return the envelope of structured mode; ``event_json`` goes in unchanged as ``data``."""
    attributes = to_json(
        {
            "specversion": SPEC_VERSION,
            "id": event.event_id,
            "source": source_uri(event),
            "type": str(event.event_type),
            "subject": ordering_key,
            "time": timestamp_text(event),
            "datacontenttype": JSON_CONTENT_TYPE,
        }
    )
    return b"".join((attributes[:-1], b',"data":', event_json, b"}"))


def data_of(envelope: Mapping[str, Any]) -> Any:
    """Return the data of a structured CloudEvent: an object, or the bytes or text of its JSON.

    Args:
        envelope: the envelope, parsed.

    Raises:
        EventDecodeError: it has no such data, or ``data_base64`` is not base64.
    """
    data, encoded = envelope.get("data"), envelope.get("data_base64")
    if encoded is None:
        if not isinstance(data, dict) and not (isinstance(data, str) and data.lstrip().startswith("{")):
            raise EventDecodeError("the CloudEvents envelope has no JSON object under 'data'")
        return data
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise EventDecodeError("'data_base64' of the CloudEvents envelope is not base64") from None
