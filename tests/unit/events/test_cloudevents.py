"""The CloudEvents view of an event follows CloudEvents 1.0.2 and its Kafka binding."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from airflow_workflow_events import CloudEventsMode, EventType
from airflow_workflow_events.events import encode, to_json
from airflow_workflow_events.events.cloudevents import source_uri, timestamp_text
from tests.events import make_event

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def headers_of(mode: CloudEventsMode = CloudEventsMode.BINARY, **fields: Any) -> dict[str, str]:
    headers = {}
    for name, data in encode(make_event(**fields), mode).headers:
        assert isinstance(data, bytes), name
        headers[name] = data.decode()
    return headers


def test_binary_headers_carry_the_attributes_and_the_content_type() -> None:
    headers = headers_of(event_id="1", timestamp="2026-11-23T02:44:35.216843Z")

    assert headers == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "airflow",
        "ce_type": "workflow.completed",
        "ce_time": "2026-11-23T02:44:35.216843Z",
        "ce_subject": "daily_sales/manual__1",
    }


@pytest.mark.parametrize("kind", [*EventType, "orders.loaded", "bestellung.überfällig"])
def test_the_type_header_is_the_events_type(kind: str) -> None:
    assert headers_of(event_type=kind)["ce_type"] == str(kind)


@pytest.mark.parametrize("mode", CloudEventsMode)
def test_the_trace_context_travels_as_a_header_in_every_mode(mode: CloudEventsMode) -> None:
    headers = headers_of(mode, metadata={"environment": "p", "traceparent": TRACEPARENT})

    assert headers["traceparent"] == TRACEPARENT
    assert "traceparent" not in headers_of(mode)


def test_structured_mode_has_no_ce_header() -> None:
    assert headers_of(CloudEventsMode.STRUCTURED) == {"content-type": "application/cloudevents+json"}


def test_the_envelope_repeats_the_binary_headers_and_holds_the_json_untouched() -> None:
    event = make_event()
    binary = headers_of(**dict(event))

    value = encode(event, CloudEventsMode.STRUCTURED).value
    envelope = json.loads(value)

    assert value.endswith(b',"data":' + to_json(event) + b"}")
    del envelope["data"]
    assert envelope.pop("datacontenttype") == binary.pop("content-type")
    assert {f"ce_{name}": text for name, text in envelope.items()} == binary


@pytest.mark.parametrize(
    ("source", "instance", "expected"),
    [
        ("airflow", None, "airflow"),
        ("airflow", "eu", "airflow/eu"),
        ("billing", None, "billing"),
        ("my system", "a b?c#d", "my%20system/a%20b%3Fc%23d"),
        ("zürich", "🎉", "z%C3%BCrich/%F0%9F%8E%89"),
        ("urn:team:billing", None, "urn:team:billing"),
    ],
)
def test_the_source_is_a_uri_reference(source: str, instance: str | None, expected: str) -> None:
    event = make_event(source=source, metadata={"environment": "p", "source_instance": instance})

    uri = source_uri(event)

    assert uri == expected
    assert uri.isascii()
    urlsplit(uri)
    assert unquote(uri) == (source if instance is None else f"{source}/{instance}")


@pytest.mark.parametrize(
    "time",
    ["2026-11-23T02:44:35.216843Z", "2026-11-23T02:44:35Z", "2026-11-23T02:44:35.5Z", "0999-01-01T00:00:00Z"],
)
def test_the_time_is_written_as_in_the_json(time: str) -> None:
    event = make_event(timestamp=time)

    assert timestamp_text(event) == json.loads(to_json(event))["timestamp"]
