"""Whatever an event holds it survives the way, and whatever a message holds it does no harm."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_workflow_events import CloudEventsMode, EventDecodeError, WorkflowEvent
from airflow_workflow_events.events import decode, encode, to_json
from airflow_workflow_events.events.framing import MAGIC_BYTE
from airflow_workflow_events.events.schema import json_schema
from tests.events import make_event
from tests.property import strategies

SCHEMA = jsonschema.Draft202012Validator(json_schema())


@given(event=strategies.events(), mode=st.sampled_from(CloudEventsMode))
def test_any_event_the_model_accepts_survives_the_way_byte_for_byte(
    event: WorkflowEvent, mode: CloudEventsMode
) -> None:
    record = encode(event, mode)

    read = decode(record.value, record.headers)

    assert read == event
    assert encode(read, mode) == record
    assert record.key == event.ordering_key.encode()


@given(event=strategies.events(), mode=st.sampled_from(CloudEventsMode))
def test_the_value_of_any_event_is_standard_json_and_its_headers_are_text(
    event: WorkflowEvent, mode: CloudEventsMode
) -> None:
    record = encode(event, mode)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(record.value.decode(), parse_constant=refuse)
    for name, data in record.headers:
        assert name.isascii()
        assert isinstance(data, bytes)
        data.decode()
    assert record.size_bytes == len(record.key) + len(record.value) + sum(
        len(name) + len(data or b"") for name, data in record.headers
    )


@given(event=strategies.events(strategies.json_objects))
def test_any_event_is_valid_by_the_published_schema(event: WorkflowEvent) -> None:
    SCHEMA.validate(json.loads(to_json(event)))


@given(
    value=st.binary(max_size=200) | strategies.texts | st.none(),
    headers=strategies.headers,
)
@example(value=b"[" * 5_000, headers=None)
@example(value="\ud800", headers=None)
def test_any_bytes_are_an_event_or_an_event_decode_error(value: bytes | str | None, headers: Any) -> None:
    read_or_refused(value, headers)


@given(document=strategies.json_values, headers=strategies.headers)
def test_any_json_is_an_event_or_an_event_decode_error(document: Any, headers: Any) -> None:
    read_or_refused(json.dumps(document), headers)


FIELDS = [
    "event_id",
    "event_type",
    "source",
    "workflow_id",
    "workflow_run_id",
    "timestamp",
    "payload",
    "metadata",
]


@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), strategies.json_values, max_size=3),
    payload=st.fixed_dictionaries(
        {}, optional={"data": strategies.json_values, "more": strategies.json_values}
    ),
    metadata=st.dictionaries(
        st.sampled_from(["environment", "version", "tags", "owner", "emitted_at", "more"]),
        strategies.json_values | st.sampled_from(["1.0", "1.7", "2.0", "prod"]),
    ),
    enveloped=st.booleans(),
)
def test_any_message_that_is_almost_an_event_is_one_or_an_event_decode_error(
    changes: dict[str, Any], payload: Any, metadata: Any, enveloped: bool
) -> None:
    document: dict[str, Any] = json.loads(to_json(make_event()))
    document["payload"] |= payload
    document["metadata"] |= metadata
    document |= changes
    headers = {"content-type": "application/cloudevents+json"} if enveloped else None

    read_or_refused(json.dumps({"data": document} if enveloped else document), headers)


@given(start=st.integers(0, 600), length=st.integers(0, 20), noise=st.binary(max_size=20))
def test_any_damaged_message_is_an_event_or_an_event_decode_error(
    start: int, length: int, noise: bytes
) -> None:
    value = to_json(make_event(event_id="1", payload={"data": {"a": [1, "x", None]}}))

    read_or_refused(value[:start] + noise + value[start + length :], None)


def read_or_refused(value: bytes | str | None, headers: Any) -> None:
    """Read a message; what is read can be written, and reads the same again."""
    try:
        event = decode(value, headers)
    except EventDecodeError:
        pass
    else:
        assert decode(to_json(event)) == event
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes) and not value.startswith(MAGIC_BYTE):  # no text has a registry's frame
        assert outcome(value, headers) == outcome(value.decode("utf-8", "surrogateescape"), headers)


def outcome(value: bytes | str, headers: Any) -> object:
    """All that reading a message comes to. Bytes are read in one go where that will do, text never is."""
    try:
        event = decode(value, headers)
    except EventDecodeError as error:
        # Where the text is broken differs with what the bytes that are none of it have become.
        return "not JSON" if "is not JSON" in str(error) else str(error)
    parts = (event, event.payload, event.metadata)
    return event, to_json(event), [(part.model_fields_set, part.model_extra) for part in parts]


@given(data=strategies.json_objects, value=strategies.refused_values, key=strategies.names)
def test_a_value_json_cannot_carry_is_refused_wherever_it_stands(
    data: dict[str, Any], value: Any, key: str
) -> None:
    with pytest.raises(ValidationError, match="payload"):
        make_event(payload={"data": data | {key: [value]}})
