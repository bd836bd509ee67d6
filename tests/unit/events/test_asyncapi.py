"""The AsyncAPI document says what the codec writes; `tests/languages` has AsyncAPI's own parser read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_workflow_events import CloudEventsMode, EventType
from airflow_workflow_events.events import DEFAULT_TOPIC, asyncapi, decode, encode
from airflow_workflow_events.events.asyncapi import ASYNCAPI_PATH
from airflow_workflow_events.events.schema import json_schema, render
from tests.events import make_event
from tests.golden import NAMES, headers_of, value_of

DOCUMENT = asyncapi.asyncapi()
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message(mode: CloudEventsMode) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["messages"][mode.value]
    return found


def validate(value: Any, schema: dict[str, Any]) -> None:
    """Validate by one of the document's schemas, whose references lead into the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.validate(value, whole, jsonschema.Draft202012Validator)


def test_the_committed_document_is_the_generated_one() -> None:
    assert ASYNCAPI_PATH.read_text("utf-8") == render(DOCUMENT), (
        "the contract and its committed AsyncAPI document differ: run `make schema`"
    )


def test_the_module_writes_the_committed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "schemas" / ASYNCAPI_PATH.name
    monkeypatch.setattr(asyncapi, "ASYNCAPI_PATH", target)

    asyncapi.main()

    assert target.read_text("utf-8") == ASYNCAPI_PATH.read_text("utf-8")
    assert capsys.readouterr().out == f"wrote {ASYNCAPI_PATH.name}\n"


def test_there_is_one_channel_with_a_message_for_each_mode() -> None:
    [channel] = DOCUMENT["channels"].values()

    assert channel["address"] == channel["bindings"]["kafka"]["topic"] == DEFAULT_TOPIC
    assert set(channel["messages"]) == {mode.value for mode in CloudEventsMode}
    assert {operation["action"] for operation in DOCUMENT["operations"].values()} == {"send", "receive"}


@pytest.mark.parametrize("mode", CloudEventsMode)
@pytest.mark.parametrize("traceparent", [None, TRACEPARENT], ids=["untraced", "traced"])
@pytest.mark.parametrize("kind", EventType)
def test_what_the_codec_writes_is_what_the_document_describes(
    kind: EventType, traceparent: str | None, mode: CloudEventsMode
) -> None:
    metadata = {"environment": "test", "source_instance": "airflow ü", "traceparent": traceparent}
    record = encode(make_event(event_type=kind, metadata=metadata), mode)
    headers = {name: data.decode() for name, data in record.headers if isinstance(data, bytes)}
    described = message(mode)

    validate(json.loads(record.value), described["payload"])
    validate(headers, described["headers"])
    validate(record.key.decode(), described["bindings"]["kafka"]["key"])
    assert headers.keys() <= described["headers"]["properties"].keys()
    assert ("traceparent" in headers) is (traceparent is not None)


@pytest.mark.parametrize("name", NAMES)
def test_every_golden_message_is_as_the_document_describes_it(name: str) -> None:
    mode = CloudEventsMode.STRUCTURED if name == "structured" else CloudEventsMode.BINARY

    validate(json.loads(value_of(name)), message(mode)["payload"])
    if headers := headers_of(name):
        validate(headers, message(mode)["headers"])


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source", "ce_specversion", "content-type"])
def test_a_binary_message_without_a_header_that_routers_need_is_not_described(name: str) -> None:
    headers = {key: data.decode() for key, data in encode(make_event()).headers if isinstance(data, bytes)}
    del headers[name]

    with pytest.raises(jsonschema.ValidationError):
        validate(headers, message(CloudEventsMode.BINARY)["headers"])


@pytest.mark.parametrize("mode", CloudEventsMode)
def test_the_examples_are_messages(mode: CloudEventsMode) -> None:
    [example] = message(mode)["examples"]

    validate(example["payload"], message(mode)["payload"])
    validate(example["headers"], message(mode)["headers"])
    event = decode(json.dumps(example["payload"]), example["headers"])

    assert event.event_id == json_schema()["examples"][0]["event_id"]
    assert example["headers"]["traceparent"] == event.metadata.traceparent


def test_its_schemas_are_those_of_the_json_schema() -> None:
    schemas = json.dumps(DOCUMENT["components"]["schemas"])
    event = DOCUMENT["components"]["schemas"]["WorkflowEvent"]

    assert "$defs" not in schemas
    assert event["required"] == json_schema()["required"]
    assert DOCUMENT["components"]["schemas"].keys() >= json_schema()["$defs"].keys()
