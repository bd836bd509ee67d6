"""A value framed for a schema registry is told from JSON, and its frame comes off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_workflow_events import EventDecodeError
from airflow_workflow_events.events import decode, encode, to_json
from airflow_workflow_events.events.framing import strip_confluent_frame
from tests.events import make_event


@given(st.integers(0, 2**32 - 1))
def test_the_frame_comes_off_whatever_the_schemas_id(schema_id: int) -> None:
    value = to_json(make_event())

    assert strip_confluent_frame(b"\0" + schema_id.to_bytes(4, "big") + value) == value


@pytest.mark.parametrize("space", [b"", b" ", b"\n", b"\r\n\t"])
def test_white_space_after_the_frame_is_json_too(space: bytes) -> None:
    assert strip_confluent_frame(b"\0\0\0\0\7" + space + b"{}") == space + b"{}"


@pytest.mark.parametrize("value", [b"", b"{}", b' {"a": "\\u0000"}', b"\1\0\0\0\0{}", b"[]"])
def test_a_value_without_a_frame_is_returned_as_it_is(value: bytes) -> None:
    assert strip_confluent_frame(value) is value


@pytest.mark.parametrize("value", [b"\0", b"\0\0\0\0", b"\0\0\0\0\7"])
def test_a_frame_around_nothing_is_an_error(value: bytes) -> None:
    with pytest.raises(EventDecodeError, match=rf"ends after {len(value)} byte"):
        strip_confluent_frame(value)


@pytest.mark.parametrize("content", [b"\x02\x10secret", b"[]", b'"secret"', b"\0\0\0\0\7{}"])
def test_a_frame_around_something_else_is_an_error_that_names_the_id_and_no_value(content: bytes) -> None:
    with pytest.raises(EventDecodeError, match="schema id 258") as raised:
        strip_confluent_frame(b"\0\0\0\1\2" + content)
    assert "secret" not in str(raised.value)


def test_decode_reads_a_framed_value() -> None:
    event = make_event()
    record = encode(event)

    assert decode(b"\0\0\0\0\7" + record.value, record.headers) == event
