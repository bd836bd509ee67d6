"""Events become Kafka records, and Kafka messages become events or say why they do not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airflow_workflow_events import CloudEventsMode
from airflow_workflow_events.errors import EventDecodeError, EventSerializationError, EventTooLargeError
from airflow_workflow_events.events import (
    MAX_EVENT_BYTES,
    WorkflowEventPayload,
    codec,
    decode,
    encode,
    to_json,
)
from tests.events import make_event

MODES = tuple(CloudEventsMode)
BINARY = CloudEventsMode.BINARY
VALID: dict[str, Any] = json.loads(to_json(make_event(event_id="e-1", timestamp="2026-11-24T00:00:00Z")))


@pytest.mark.parametrize("mode", MODES)
def test_an_event_comes_back_as_it_was(mode: CloudEventsMode) -> None:
    event = make_event(
        severity="high",
        payload={"data": {"a": [1, 0.1, None, "ü", {"b": []}], "big": 2**70}},
        metadata={
            "environment": "p",
            "tags": ["x"],
            "traceparent": "00-1-2-01",
            "emitted_at": "2026-01-01T00:00",
        },
    )

    record = encode(event, mode)

    assert decode(record.value, record.headers) == event


def test_the_json_is_that_of_the_contract_with_utc_times_and_without_absent_fields() -> None:
    event = make_event(
        event_id="1", timestamp="2026-11-23T02:44:35.216843Z", payload={"data": {"note": None, "ü": 1}}
    )

    assert to_json(event).decode() == (
        '{"event_id":"1","event_type":"workflow.completed","source":"airflow","workflow_id":"daily_sales",'
        '"workflow_run_id":"manual__1","timestamp":"2026-11-23T02:44:35.216843Z",'
        '"payload":{"data":{"note":null,"ü":1}},"metadata":{"environment":"test","version":"1.0"}}'
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_key_is_the_ordering_key_in_every_mode(mode: CloudEventsMode) -> None:
    assert encode(make_event(workflow_id="ä", workflow_run_id="b"), mode).key == "ä/b".encode()


def test_in_binary_and_off_mode_the_value_is_the_json_untouched() -> None:
    event = make_event()

    assert encode(event, BINARY).value == encode(event, CloudEventsMode.OFF).value == to_json(event)


def test_off_mode_has_no_header_but_the_trace_context() -> None:
    traced = make_event(metadata={"environment": "p", "traceparent": "00-1-2-01"})

    assert encode(make_event(), CloudEventsMode.OFF).headers == []
    assert encode(traced, CloudEventsMode.OFF).headers == [("traceparent", b"00-1-2-01")]


class SalesPayload(WorkflowEventPayload):
    order_id: str


def test_the_fields_of_a_subclass_are_written_and_read_as_further_fields() -> None:
    event = make_event(payload=SalesPayload(order_id="7", data={"a": 1}))

    read = decode(to_json(event))

    assert read.payload.data == {"a": 1}
    assert read.payload.model_extra == {"order_id": "7"}


@pytest.mark.parametrize(
    "value",
    [object(), float("nan"), float("-inf"), b"\xff", "\ud800"],
    ids=["object", "NaN", "infinity", "bytes", "lone surrogate"],
)
def test_an_event_changed_into_what_json_cannot_carry_is_refused_with_its_id_and_the_path(
    value: object,
) -> None:
    event = make_event(payload={"data": {"rows": [{"a": 1}]}})
    event.payload.data["rows"][0]["a"] = value

    with pytest.raises(EventSerializationError) as caught:
        encode(event)

    assert event.event_id in str(caught.value)
    assert "payload.data.rows[0].a: " in str(caught.value)


def test_an_event_changed_into_a_circle_is_refused() -> None:
    event = make_event()
    event.payload.data["self"] = event.payload.data

    with pytest.raises(EventSerializationError, match=r"payload\.data\.self: .*break the cycle"):
        encode(event)


def test_an_event_changed_into_a_deep_nest_is_refused() -> None:
    event = make_event()
    inner = event.payload.data
    for _ in range(3_000):
        inner["a"] = inner = {}

    with pytest.raises(EventSerializationError, match="nested deeper"):
        encode(event)


def test_nan_in_an_unknown_field_of_a_changed_event_does_not_reach_the_topic() -> None:
    event = make_event(links={"a": 1})
    assert event.model_extra is not None
    event.model_extra["links"]["a"] = float("nan")

    with pytest.raises(EventSerializationError, match="was changed after it was built"):
        encode(event)


def test_the_words_nan_and_infinity_are_only_words_inside_a_string() -> None:
    event = make_event(payload={"data": {"NaN": "NaN, Infinity, -Infinity"}})

    assert decode(to_json(event)) == event


def test_a_harmless_change_of_a_built_event_is_sent() -> None:
    event = make_event(payload={"data": {"rows": [1]}})
    event.payload.data["rows"].append(2)

    assert decode(encode(event).value).payload.data == {"rows": [1, 2]}


@pytest.mark.parametrize("mode", MODES)
def test_a_record_of_exactly_the_limit_is_accepted_and_one_byte_more_is_refused(
    mode: CloudEventsMode,
) -> None:
    event = make_event(payload={"data": {"bulk": "x" * 5_000}})
    size = encode(event, mode).size_bytes

    assert encode(event, mode, max_bytes=size).size_bytes == size
    with pytest.raises(EventTooLargeError) as caught:
        encode(event, mode, max_bytes=size - 1)

    assert (caught.value.event_id, caught.value.size_bytes, caught.value.limit_bytes) == (
        event.event_id,
        size,
        size - 1,
    )
    assert "object store" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"workflow_id": "w" * 400_000},
        {"workflow_id": "ü🎉" * 60_000},
        {"metadata": {"environment": "p", "source_instance": "🎉" * 60_000}},
        {"metadata": {"environment": "p", "traceparent": "0" * 500_000}},
    ],
    ids=["long id", "long id beyond ASCII", "long instance", "long trace context"],
)
def test_the_size_counts_key_and_headers_too(fields: dict[str, Any]) -> None:
    event = make_event(**fields)
    assert len(to_json(event)) < MAX_EVENT_BYTES

    with pytest.raises(EventTooLargeError):
        encode(event)


def test_the_default_limit_stays_below_librdkafkas_and_the_brokers() -> None:
    assert MAX_EVENT_BYTES == 921_600
    assert MAX_EVENT_BYTES < 1_000_000


def without(*fields: str) -> bytes:
    return json.dumps({name: value for name, value in VALID.items() if name not in fields}).encode()


def having(**fields: Any) -> bytes:
    return json.dumps(VALID | fields).encode()


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels > 1 else {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "is not JSON"),
        (b"text", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"a": NaN}', "is not JSON"),
        (b'{"a": 1}{"b": 2}', "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        ("\ud800", "is not JSON"),
        (b"null", "JSON NoneType, not an object"),
        (b"[]", "JSON list, not an object"),
        (b'"text"', "JSON str, not an object"),
        (b"{}", "event_id is missing"),
        (without("event_id"), "event_id is missing"),
        (having(event_id=None), "event_id is missing"),
        (without("timestamp"), "timestamp is missing"),
        (having(timestamp=None), "timestamp is missing"),
        (without("workflow_id"), "workflow_id: Field required"),
        (having(workflow_id=7), "workflow_id: Input should be a valid string"),
        (having(timestamp="canary"), "timestamp: "),
        (having(timestamp="0001-01-01T00:00:00+09:00"), "timestamp: .*years 1 to 9999"),
        (having(metadata={"environment": "p", "version": "2.0"}), "is 2.0.*upgrade"),
        (having(metadata={"environment": "canary", "tags": "canary"}), r"metadata\.tags: "),
        (having(payload={"data": "canary"}), r"payload\.data: must be a mapping"),
        (having(payload={"data": {"a": float("nan")}}), "is not JSON"),
        (having(unknown=[float("-inf")]), "is not JSON"),
        (having().replace(b'"payload":', b'"more": NaN, "more": 1, "payload":'), "is not JSON"),
        (having(payload={"data": {"a": 2**1024}}), r"payload\.data\.a: .*more than 1024 bits"),
        (having(payload={"data": {"a": [-(2**1024)]}}), r"payload\.data\.a\[0\]: .*more than 1024 bits"),
        (having(payload={"data": nested(101)}), "nested deeper than 100 levels"),
        (
            having(payload={"data": {"a": "@"}}).replace(b'"@"', b"1e999"),
            r"payload\.data\.a: is NaN or infinite",
        ),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason_and_without_the_value(
    value: bytes | str | None, reason: str
) -> None:
    with pytest.raises(EventDecodeError, match=reason) as caught:
        decode(value)

    assert "canary" not in str(caught.value)


def test_a_payload_may_go_as_far_as_the_limits() -> None:
    data = {"deep": nested(99), "big": 2**1024 - 1, "small": -(2**1024) + 1, "list": [[1.5, True, None, "ü"]]}

    assert decode(having(payload={"data": data})).payload.data == data


def test_of_a_field_that_stands_there_twice_the_last_one_counts() -> None:
    value = having().replace(b'"payload": {', b'"event_id": "e-2", "more": 1, "more": 2, "payload": {')

    assert decode(value) == decode(value.decode()) == decode(having(event_id="e-2", more=2))


def test_text_is_read_like_bytes() -> None:
    assert decode(json.dumps(VALID)) == decode(json.dumps(VALID).encode())


def test_a_reader_tolerates_unknown_types_sources_fields_and_newer_minor_versions() -> None:
    event = decode(
        having(
            event_type="workflow.paused",
            source="dagster",
            severity={"level": [1]},
            metadata={"environment": "p", "version": "1.7", "region": "eu"},
        )
    )

    assert (event.event_type, event.source) == ("workflow.paused", "dagster")
    assert event.model_extra == {"severity": {"level": [1]}}
    assert event.metadata.model_extra == {"region": "eu"}
    assert event.metadata.version == "1.7"


def test_a_message_without_payload_is_read_as_one_with_an_empty_payload() -> None:
    assert decode(without("payload")).payload.data == {}


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        {},
        [("content-type", b"application/json")],
        [("content-type", None)],
        [("content-type", b"\xff")],
        [("ce_id", b"other"), ("ce_type", b"other")],
        {"content-type": "application/json"},
        {"Content-Type": b"text/plain"},
    ],
)
def test_headers_other_than_the_structured_content_type_change_nothing(headers: Any) -> None:
    assert decode(having(), headers) == decode(having())


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents+json",
        "application/cloudevents+json",
        b"application/cloudevents+json; charset=utf-8",
        b"Application/CloudEvents+JSON",
    ],
)
def test_a_structured_message_is_known_by_its_content_type(name: str, content_type: str | bytes) -> None:
    value = json.dumps({"specversion": "1.0", "data": VALID})

    assert decode(value, [(name, content_type)]) == decode(value, {name: content_type}) == decode(having())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (without("event_id"), "event_id is missing"),
        (having(timestamp=None), "timestamp is missing"),
        (having(workflow_id=7), "not a workflow event: workflow_id: Input should be a valid string"),
    ],
)
def test_what_is_in_an_envelope_is_refused_as_it_is_without_one(value: bytes, reason: str) -> None:
    envelope = b'{"specversion": "1.0", "data": %b}' % value

    with pytest.raises(EventDecodeError, match=f"^{reason}"):
        decode(envelope, {"content-type": "application/cloudevents+json"})


@pytest.mark.parametrize("envelope", [{}, {"data": None}, {"data": "text"}, {"data": [1]}, {"data": 7}])
def test_an_envelope_without_an_object_in_it_is_refused(envelope: dict[str, Any]) -> None:
    with pytest.raises(EventDecodeError, match="no JSON object under 'data'"):
        decode(json.dumps(envelope), {"content-type": "application/cloudevents+json"})


def wrapped(**fields: Any) -> bytes:
    """The envelope of a structured CloudEvent with these fields."""
    return json.dumps({"specversion": "1.0", "id": "1", "type": "t", "source": "s", **fields}).encode()


STRUCTURED = {"content-type": b"application/cloudevents+json"}
IN_BASE64 = base64.b64encode(having()).decode()
WRAPPINGS = {
    "data_base64": wrapped(data_base64=IN_BASE64),
    "data_base64 beside null": wrapped(data=None, data_base64=IN_BASE64),
    "data that is text": wrapped(data=having().decode()),
    "data that is the text of text": wrapped(
        data_base64=base64.b64encode(json.dumps(having().decode()).encode()).decode()
    ),
    "data": wrapped(data=VALID),
    "a JSON string": json.dumps(having().decode()).encode(),
    "a JSON string of an envelope": json.dumps(wrapped(data=VALID).decode()).encode(),
    "Kafka Connect's envelope of text": json.dumps(
        {"schema": {"type": "string", "optional": False}, "payload": having().decode()}
    ).encode(),
    "Kafka Connect's envelope of an object": json.dumps({"schema": None, "payload": VALID}).encode(),
}


@pytest.mark.parametrize("headers", [None, [], {"content-type": b"application/json"}, STRUCTURED])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_an_event_is_read_in_whatever_it_was_wrapped_on_its_way(wrapping: str, headers: Any) -> None:
    assert decode(WRAPPINGS[wrapping], headers) == decode(having())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data_base64": "not base64"}, "is not base64"),
        ({"data_base64": "ü"}, "is not base64"),
        ({"data_base64": 7}, "is not base64"),
        ({"data_base64": "e30="}, "event_id is missing"),
        ({"data_base64": base64.b64encode(b"text").decode()}, "is not JSON"),
        ({"data": "{"}, "is not JSON"),
        ({"data": without("timestamp").decode()}, "timestamp is missing"),
    ],
)
def test_what_is_wrong_within_an_envelope_is_told(fields: dict[str, Any], reason: str) -> None:
    for headers in (None, STRUCTURED):
        with pytest.raises(EventDecodeError, match=reason):
            decode(wrapped(**fields), headers)


def test_an_event_is_not_unwrapped_without_end() -> None:
    value = having().decode()
    for _ in range(6):
        value = json.dumps(value)

    with pytest.raises(EventDecodeError, match="JSON str, not an object"):
        decode(value)


def test_a_batch_of_events_is_refused_with_what_to_do() -> None:
    with pytest.raises(EventDecodeError, match="JSON list, not an object: send each event as a message"):
        decode(json.dumps([VALID]), {"content-type": "application/cloudevents-batch+json"})


def test_the_size_of_a_record_counts_key_value_and_headers() -> None:
    record = encode(make_event(), CloudEventsMode.BINARY)
    headers = sum(len(name) + len(data) for name, data in record.headers if data is not None)

    assert record.size_bytes == len(record.key) + len(record.value) + headers


def test_what_an_error_says_is_one_short_line_whatever_the_names_in_the_message() -> None:
    name = "x\nCRITICAL forged line\n" + "A" * 100_000

    with pytest.raises(EventDecodeError) as failure:
        decode(having(payload={"data": {name: nested(101)}}))

    assert "CRITICAL forged line" in str(failure.value)
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 1_100


@pytest.mark.parametrize("owner", ["", "data-platform"], ids=["read by the models", "read at once"])
def test_a_plain_event_is_read_although_its_header_promises_an_envelope(owner: str) -> None:
    value = having(metadata={"environment": "prod", "owner": owner})

    event = decode(value, [("content-type", b"application/cloudevents+json")])

    assert event.metadata.environment == "prod"


def test_a_value_that_was_read_once_in_vain_is_not_read_so_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[bytes, bool]] = []

    def read(value: bytes, *, structured: bool = False) -> None:
        tried.append((value, structured))

    monkeypatch.setattr(codec, "read_at_once", read)
    value = b'{"no": "event"}'

    structured: list[tuple[str, str | bytes | None]] = [("content-type", b"application/cloudevents+json")]
    for headers in ([], structured):
        with pytest.raises(EventDecodeError):
            codec.decode_further(value, headers)
    assert tried == [(value, True)]
