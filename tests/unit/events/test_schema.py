"""The published JSON Schema says what stands on the topic; `tests/golden` holds it to what it said before."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from airflow_workflow_events import EventType, WorkflowEvent, WorkflowEventMetadata, WorkflowEventPayload
from airflow_workflow_events.events import decode, schema, to_json
from airflow_workflow_events.events.schema import SCHEMA_PATH, json_schema, render
from tests.events import make_event
from tests.golden import NAMES, SCHEMA_FILE, document_of

FROZEN: dict[str, Any] = json.loads(SCHEMA_FILE.read_text("utf-8"))


def test_the_committed_schema_is_the_generated_one() -> None:
    assert SCHEMA_PATH.read_text("utf-8") == render(json_schema()), (
        "the model and its committed schema differ: run `make schema`"
    )


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", [FROZEN, json_schema()], ids=["frozen", "current"])
def test_every_golden_message_is_valid(name: str, which: dict[str, Any]) -> None:
    jsonschema.validate(document_of(name), which, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("kind", EventType)
def test_what_this_package_writes_is_valid(kind: EventType) -> None:
    event = make_event(event_type=kind, severity="high", payload={"data": {"a": [None]}})

    jsonschema.validate(json.loads(to_json(event)), FROZEN, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("field", FROZEN["required"])
def test_a_field_the_schema_guarantees_is_required_by_the_reader_too(field: str) -> None:
    document = json.loads(to_json(make_event()))
    del document[field]

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, FROZEN, jsonschema.Draft202012Validator)
    with pytest.raises(ValueError, match=field):
        decode(json.dumps(document))


def test_the_schemas_example_is_an_event() -> None:
    for example in json_schema()["examples"]:
        assert decode(json.dumps(example)).event_id == example["event_id"]


def test_every_field_has_a_description() -> None:
    for model in (WorkflowEvent, WorkflowEventMetadata, WorkflowEventPayload):
        for name, field in model.model_fields.items():
            assert field.description or name in {"payload", "metadata"}, f"{model.__name__}.{name}"


def test_the_module_writes_the_committed_file(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "schemas" / SCHEMA_PATH.name
    monkeypatch.setattr(schema, "SCHEMA_PATH", target)

    schema.main()

    assert target.read_text("utf-8") == render(json_schema())
    assert capsys.readouterr().out == f"wrote {SCHEMA_PATH.name}\n"
