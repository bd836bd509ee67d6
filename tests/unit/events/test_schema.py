"""The published JSON Schema says what stands on the topic, and goes on saying it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from airflow_workflow_events import EventType, WorkflowEvent, WorkflowEventMetadata, WorkflowEventPayload
from airflow_workflow_events.events import decode, schema, to_json
from airflow_workflow_events.events.schema import SCHEMA_PATH, json_schema, render
from tests.events import make_event
from tests.golden import NAMES, SCHEMA_FILE, document_of
from tests.unit.events.schema_compatibility import breaking_changes

FROZEN: dict[str, Any] = json.loads(SCHEMA_FILE.read_text("utf-8"))

WHAT_TO_DO = """
The event's model changed in a way that breaks readers of schema 1.0, or the reading of stored 1.0 events:

  {changes}

If a field is new, make it optional. Otherwise leave the field as it was and add a new one beside it. A
change that cannot be made so needs a new major version: a new SCHEMA_VERSION, a new schema file beside the
one of 1.0, and a reader that understands both. The frozen copy in tests/golden is never edited.
"""


def test_the_committed_schema_is_the_generated_one() -> None:
    assert SCHEMA_PATH.read_text("utf-8") == render(), (
        "the model and its committed schema differ: run `python -m airflow_workflow_events.events.schema`"
    )


def test_no_change_of_the_schema_breaks_readers_of_1_0() -> None:
    changes = list(breaking_changes(FROZEN, json_schema()))

    assert not changes, WHAT_TO_DO.format(changes="\n  ".join(changes))


def _metadata(changed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = changed["$defs"]["WorkflowEventMetadata"]
    return found


BREAKING: dict[str, Callable[[dict[str, Any]], object]] = {
    "a field is removed": lambda s: s["properties"].pop("workflow_id"),
    "a field is renamed": lambda s: _metadata(s)["properties"].update(
        env=_metadata(s)["properties"].pop("team")
    ),
    "a field is no longer guaranteed": lambda s: s["required"].remove("event_id"),
    "a new field is required": lambda s: s["required"].append("severity"),
    "a type changes": lambda s: s["properties"]["workflow_id"].update(type="integer"),
    "a type is narrowed": lambda s: _metadata(s)["properties"]["owner"]["anyOf"].pop(),
    "a type is widened": lambda s: s["properties"]["workflow_id"].update(type=["string", "null"]),
    "a limit is lowered": lambda s: s["properties"]["event_id"].update(maxLength=36),
    "a limit is lifted": lambda s: s["properties"]["event_id"].pop("maxLength"),
    "a pattern is added": lambda s: s["properties"]["event_id"].update(pattern="^[0-9a-f-]+$"),
    "a known type is removed": lambda s: s["$defs"]["EventType"]["enum"].remove("task.skipped"),
    "unknown types are refused": lambda s: s["properties"]["event_type"]["anyOf"].pop(),
    "unknown fields are refused": lambda s: s.update(additionalProperties=False),
    "a definition is removed": lambda s: s["$defs"].pop("WorkflowEventPayload"),
}


@pytest.mark.parametrize("change", BREAKING)
def test_the_guard_sees_that(change: str) -> None:
    changed = copy.deepcopy(FROZEN)
    BREAKING[change](changed)

    assert list(breaking_changes(FROZEN, changed))


def test_the_guard_allows_new_optional_fields_new_known_types_and_better_words() -> None:
    changed = copy.deepcopy(FROZEN)
    changed["description"] = "Something that happened."
    changed["properties"]["severity"] = {"type": "string"}
    changed["$defs"]["Link"] = {"type": "object"}
    changed["$defs"]["EventType"]["enum"].append("task.deferred")

    assert not list(breaking_changes(FROZEN, changed))


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

    assert target.read_text("utf-8") == render()
    assert capsys.readouterr().out == f"wrote {SCHEMA_PATH.name}\n"
