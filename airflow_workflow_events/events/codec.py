"""Events to Kafka records and back: pure functions, no Kafka client involved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json

from airflow_workflow_events.errors import (
    EventDecodeError,
    EventSerializationError,
    EventTooLargeError,
    EventValidationError,
    printable,
)
from airflow_workflow_events.events import cloudevents
from airflow_workflow_events.events.cloudevents import CloudEventsMode, Headers
from airflow_workflow_events.events.framing import MAGIC_BYTE, strip_confluent_frame
from airflow_workflow_events.events.json_values import may_name_non_finite, to_json_object
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.events.parsing import read_at_once

#: An event never comes near the limits on the way: librdkafka refuses messages of 1,000,000 bytes
#: (message.max.bytes) and brokers batches of 1,048,588 (max.message.bytes), both counting some overhead.
MAX_EVENT_BYTES = 921_600

# Looking a member up in its enum costs as much as encoding the key (until Python 3.12).
_BINARY, _STRUCTURED = CloudEventsMode.BINARY, CloudEventsMode.STRUCTURED
# How often an event may be wrapped: Kafka Connect's envelope, a JSON string, a CloudEvent, its text.
_MAX_WRAPPINGS = 4
_REQUIRED_ON_THE_WIRE = frozenset(("event_id", "timestamp"))
# What Kafka Connect's JsonConverter makes of a record where schemas.enable is left on.
_CONNECT_ENVELOPE = frozenset(("schema", "payload"))


class KafkaRecord(NamedTuple):
    """What of an event is written to Kafka."""

    key: bytes
    value: bytes
    headers: Headers

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value and headers together, without the protocol's own overhead."""
        return (
            len(self.key) + len(self.value) + sum(len(name) + len(data or b"") for name, data in self.headers)
        )


def to_json(event: WorkflowEvent) -> bytes:
    """Return the event as the JSON of the contract, in UTF-8.

    Raises:
        EventSerializationError: the event was changed after it was built (``event.payload.data[...] = ...``)
            into something JSON cannot carry; the message names the path.
    """
    try:
        # The instance's own serializer: the model's would leave out what a subclass adds.
        data = event.__pydantic_serializer__.to_json(event, exclude_none=True)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise _changed(event, error) from None
    if may_name_non_finite(data):
        try:
            from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise _changed(event, error) from None
    return data


def encode(
    event: WorkflowEvent,
    mode: CloudEventsMode = CloudEventsMode.BINARY,
    *,
    max_bytes: int = MAX_EVENT_BYTES,
) -> KafkaRecord:
    """Return the Kafka record of an event.

    Args:
        event: the event.
        mode: how CloudEvents lays it out. Default: binary.
        max_bytes: the most key, value and headers may take together, in bytes. Default 921,600.

    Raises:
        EventSerializationError: see :func:`to_json`.
        EventTooLargeError: the record is larger than ``max_bytes``.
    """
    try:
        value = to_json(event)
        key = event.ordering_key
        key_bytes = key.encode()
        if mode is _BINARY:
            record = KafkaRecord(key_bytes, value, cloudevents.binary_headers(event, value, key_bytes))
        elif mode is _STRUCTURED:
            envelope = cloudevents.structured_value(event, value, key)
            record = KafkaRecord(key_bytes, envelope, cloudevents.structured_headers(event))
        else:
            record = KafkaRecord(key_bytes, value, cloudevents.with_traceparent(event, []))
    except EventSerializationError:
        raise
    except (AttributeError, TypeError, ValueError) as error:  # model_copy() and the like take anything
        raise _changed(event, error) from None
    # Key and headers repeat what is in the value, at most three times over where a URI's percent-encoding
    # swells it: they are counted only where it could matter.
    if len(record.value) > max_bytes // 8 and record.size_bytes > max_bytes:
        raise EventTooLargeError(event.event_id, record.size_bytes, max_bytes)
    return record


def decode(
    value: bytes | str | None,
    headers: Iterable[tuple[str, str | bytes | None]] | Mapping[str, str | bytes | None] | None = None,
) -> WorkflowEvent:
    """Return the event of a Kafka message, in whichever mode it was written.

    Args:
        value: the message's value.
        headers: its headers, as a client gives them. Default: none, which means plain JSON.

    Raises:
        EventDecodeError: the message is no workflow event; the text says why, without quoting values.
    """
    return _decode(value, headers, was_tried=False)


def decode_further(
    value: bytes | str | None,
    headers: Iterable[tuple[str, str | bytes | None]] | Mapping[str, str | bytes | None] | None,
) -> WorkflowEvent:
    """Do what :func:`decode` does, for a value that ``read_at_once`` did not take as it stands."""
    return _decode(value, headers, was_tried=True)


def _decode(
    value: bytes | str | None,
    headers: Iterable[tuple[str, str | bytes | None]] | Mapping[str, str | bytes | None] | None,
    *,
    was_tried: bool,
) -> WorkflowEvent:
    if value is None:
        raise EventDecodeError("the message has no value (a tombstone): there is no event in it")
    if type(value) is bytes and value.startswith(MAGIC_BYTE):
        value, was_tried = strip_confluent_frame(value), False
    structured = _is_structured(headers)
    event = None
    if type(value) is bytes and (structured or not was_tried):
        event = read_at_once(value, structured=structured)
    return _read_step_by_step(value, structured) if event is None else event


def _read_step_by_step(value: bytes | str, structured: bool) -> WorkflowEvent:
    """Return the event, or say what is wrong with the message."""
    document = _parse(value)
    for _ in range(_MAX_WRAPPINGS):
        inner = _unwrap(document, structured)
        if inner is None:
            break
        structured = False
        if isinstance(inner, str | bytes):
            event = read_at_once(inner.encode("utf-8", "surrogatepass") if isinstance(inner, str) else inner)
            if event is not None:
                return event
            inner = _parse(inner)
        document = inner
    if not isinstance(document, dict):
        hint = ": send each event as a message of its own" if isinstance(document, list) else ""
        raise EventDecodeError(f"the value is a JSON {type(document).__name__}, not an object{hint}")
    for name in sorted(_REQUIRED_ON_THE_WIRE):
        if document.get(name) is None:
            raise EventDecodeError(f"{name} is missing: without it the event cannot be told from another")
    try:
        return WorkflowEvent.model_validate(document)
    except ValidationError as error:
        raise EventDecodeError(f"not a workflow event: {_problems(error)}") from None


def _parse(value: bytes | str) -> Any:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")  # which the parser then refuses as it does bad bytes
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise EventDecodeError(f"the value is not JSON: {error}") from None


def _unwrap(document: Any, structured: bool) -> Any:
    """Return what a document is the wrapping of: JSON text, or an object; ``None`` where it is none."""
    if isinstance(document, str):
        # A converter of Kafka Connect took the JSON for a text.
        return document if document.lstrip().startswith(("{", '"')) else None
    # An event is read whatever its headers say; no envelope has these names, as CloudEvents allows no "_".
    if not isinstance(document, dict) or document.keys() >= _REQUIRED_ON_THE_WIRE:
        return None
    if document.keys() == _CONNECT_ENVELOPE:
        return document["payload"]
    return cloudevents.data_of(document) if structured or "specversion" in document else None


def _is_structured(
    headers: Iterable[tuple[str, str | bytes | None]] | Mapping[str, str | bytes | None] | None,
) -> bool:
    if not headers:
        return False
    # A list, as clients give it, need not be asked whether it is a mapping, which would take its time.
    pairs = headers.items() if type(headers) is not list and isinstance(headers, Mapping) else headers
    for name, data in pairs:
        if name.lower() == cloudevents.CONTENT_TYPE_HEADER and data is not None:
            if isinstance(data, bytes):
                return data.lower().startswith(b"application/cloudevents")
            return data.lower().startswith("application/cloudevents")
    return False


def _problems(error: ValidationError) -> str:
    text = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'event'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)[:5]
    )
    # The names in it are the sender's, who must not be able to write lines of a log, nor to fill it.
    return printable(text)


def _changed(event: WorkflowEvent, error: Exception) -> EventSerializationError:
    reason: Exception = error
    try:
        to_json_object(event.payload.data, "payload.data")
    except EventValidationError as found:
        reason = found
    except AttributeError:  # the payload is none any more
        pass
    return EventSerializationError(
        f"event {printable(event.event_id)} was changed after it was built and can no longer be sent: "
        f"{reason}"
    )
