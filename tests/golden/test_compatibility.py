"""Schema 1.x never breaks its readers: a change that would fails here, and is told how to become a 2.0."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events.events import SCHEMA_VERSION
from airflow_workflow_events.events.schema import json_schema
from tests.golden import DIRECTORY, SCHEMA_FILE
from tests.golden.compatibility import Schema, breaking_changes

FROZEN: Schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
#: The schema of each minor version, as it was released.
RELEASED = sorted(DIRECTORY.glob(f"workflow-event-{SCHEMA_VERSION.partition('.')[0]}.*.schema.json"))

WHAT_TO_DO = """
The event's model changed in a way that breaks readers of schema 1.x:

  - {changes}

Mostly there is a way around it: make a new field optional; leave a field as it was and add another beside it;
write the old field and the new one for a while.

Where there is none, it is a 2.0, and all of this belongs to it:

  1. SCHEMA_VERSION in events/model.py becomes "2.0". Producers write it into metadata.version.
  2. `make schema` then writes new files, workflow-event-2.0.schema.json and
     workflow-events-2.0.asyncapi.json. The files of 1.0 stay where they are.
  3. tests/golden gets a frozen copy, workflow-event-2.0.schema.json, and golden messages of 2.0. Nothing of
     1.0 is edited or removed there: its messages must be read for ever.
  4. decode() reads both: it tells them apart by metadata.version, and brings a 1.x event into 2.0's form.
  5. 2.0 goes to a topic of its own, or consumers are upgraded before producers: a reader of 1.x refuses it.
  6. CHANGELOG.md and docs/contract.md say what changed and how to migrate.
"""


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.name)
def test_no_change_of_the_schema_breaks_readers_of_1_x(released: Path) -> None:
    changes = breaking_changes(json.loads(released.read_text("utf-8")), json_schema())

    assert not changes, WHAT_TO_DO.format(changes="\n  - ".join(map(str, changes)))


def test_the_version_that_is_written_has_its_schema_frozen() -> None:
    assert DIRECTORY / f"workflow-event-{SCHEMA_VERSION}.schema.json" in RELEASED


def metadata(schema: Schema) -> Schema:
    found: Schema = schema["$defs"]["WorkflowEventMetadata"]
    return found


def fields(schema: Schema) -> Schema:
    found: Schema = metadata(schema)["properties"]
    return found


Edit = Callable[[Schema], Any]

BREAKING: dict[str, tuple[Edit, str, str]] = {
    "a field is removed": (
        lambda s: s["properties"].pop("workflow_id"),
        "workflow_id",
        "was removed",
    ),
    "a field inside another is removed": (
        lambda s: fields(s).pop("team"),
        "metadata.team",
        "was removed",
    ),
    "a field is renamed": (
        lambda s: fields(s).update(group=fields(s).pop("team")),
        "metadata.team",
        "was removed",
    ),
    "a field is no longer always there": (
        lambda s: s["required"].remove("event_id"),
        "event_id",
        "is no longer always there",
    ),
    "no field is required any more": (
        lambda s: metadata(s).pop("required"),
        "metadata.environment",
        "is no longer always there",
    ),
    "a new field is required": (
        lambda s: s["required"].append("severity"),
        "severity",
        "is required now",
    ),
    "an optional field becomes required": (
        lambda s: metadata(s)["required"].append("owner"),
        "metadata.owner",
        "is required now",
    ),
    "a type changes": (
        lambda s: s["properties"]["workflow_id"].update(type="integer"),
        "workflow_id",
        "can be integer now",
    ),
    "a type is narrowed": (
        lambda s: fields(s)["owner"]["anyOf"].pop(),
        "metadata.owner",
        "can no longer be null",
    ),
    "a type is widened by a list of types": (
        lambda s: s["properties"]["workflow_id"].update(type=["string", "null"]),
        "workflow_id",
        "can be null now",
    ),
    "a type is widened by alternatives": (
        lambda s: s["properties"].update(
            workflow_id={"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}
        ),
        "workflow_id",
        "can be null now",
    ),
    "the items of a list change": (
        lambda s: fields(s)["tags"]["anyOf"][0]["items"].update(type="object"),
        "metadata.tags[]",
        "can no longer be string",
    ),
    "the items of a list can be anything": (
        lambda s: fields(s)["tags"]["anyOf"][0].pop("items"),
        "metadata.tags",
        'items was {"type": "string"}, is absent',
    ),
    "a limit is lowered": (
        lambda s: s["properties"]["event_id"].update(maxLength=36),
        "event_id",
        "maxLength was 255, is 36",
    ),
    "a limit is raised": (
        lambda s: s["properties"]["event_id"].update(maxLength=4096),
        "event_id",
        "maxLength was 255, is 4096",
    ),
    "a limit is lifted": (
        lambda s: s["properties"]["event_id"].pop("maxLength"),
        "event_id",
        "maxLength was 255, is absent",
    ),
    "an empty text becomes possible": (
        lambda s: s["properties"]["workflow_id"].update(minLength=0),
        "workflow_id",
        "minLength was 1, is 0",
    ),
    "a pattern is added": (
        lambda s: s["properties"]["event_id"].update(pattern="^[0-9a-f-]+$"),
        "event_id",
        'pattern was absent, is "^[0-9a-f-]+$"',
    ),
    "a pattern is dropped": (
        lambda s: fields(s)["version"].pop("pattern"),
        "metadata.version",
        'pattern was "^\\\\d+\\\\.\\\\d+$", is absent',
    ),
    "a format is dropped": (
        lambda s: s["properties"]["timestamp"].pop("format"),
        "timestamp",
        'format was "date-time", is absent',
    ),
    "a known type is removed": (
        lambda s: s["$defs"]["EventType"]["enum"].remove("task.skipped"),
        "event_type",
        "'task.skipped' is no longer a known name",
    ),
    "unknown types are refused": (
        lambda s: s["properties"]["event_type"]["anyOf"].pop(),
        "event_type",
        "can no longer be string",
    ),
    "known names are added where unknown ones are refused": (
        lambda s: (
            s["properties"]["source"]["anyOf"].pop(),
            s["$defs"]["EventSource"]["enum"].append("dagster"),
        ),
        "source",
        "'dagster' is a name beside which no other was allowed",
    ),
    "unknown fields are refused": (
        lambda s: s.update(additionalProperties=False),
        "event",
        "additionalProperties was true, is false",
    ),
    "unknown fields are typed": (
        lambda s: metadata(s).update(additionalProperties={"type": "string"}),
        "metadata",
        'additionalProperties was true, is {"type": "string"}',
    ),
    "a keyword the comparison does not know appears": (
        lambda s: s.update({"if": {"required": ["severity"]}}),
        "event",
        'if was absent, is {"required": ["severity"]}',
    ),
    "a definition is exchanged for another": (
        lambda s: s["properties"]["payload"].update({"$ref": "#/$defs/WorkflowEventMetadata"}),
        "payload.data",
        "was removed",
    ),
}

HARMLESS: dict[str, Edit] = {
    "nothing": lambda s: None,
    "a new optional field": lambda s: s["properties"].update(severity={"type": "string"}),
    "a new optional field inside another": lambda s: fields(s).update(region={"$ref": "#/$defs/EventSource"}),
    "a new definition": lambda s: s["$defs"].update(Link={"type": "object"}),
    "a new known type": lambda s: s["$defs"]["EventType"]["enum"].append("task.deferred"),
    "better words": lambda s: s["properties"]["event_id"].update(description="The id.", title="Id"),
    "another example": lambda s: s.update(examples=[]),
    "a deprecated field": lambda s: fields(s)["team"].update(deprecated=True),
    "another order": lambda s: s["required"].reverse(),
    "a definition written out where it is used": lambda s: s["properties"].update(
        metadata=s["$defs"].pop("WorkflowEventMetadata")
    ),
    "a definition renamed": lambda s: (
        s["$defs"].update(Payload=s["$defs"].pop("WorkflowEventPayload")),
        s["properties"]["payload"].update({"$ref": "#/$defs/Payload"}),
    ),
    "alternatives written as a list of types": lambda s: fields(s).update(owner={"type": ["null", "string"]}),
    "what is true by default left out": lambda s: s.pop("additionalProperties"),
}


def changed_by(edit: Edit) -> Schema:
    changed = copy.deepcopy(FROZEN)
    edit(changed)
    return changed


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_named_with_its_field(change: str) -> None:
    edit, where, what = BREAKING[change]

    found = breaking_changes(FROZEN, changed_by(edit))

    assert (where, what) in [(one.where, one.what) for one in found]


@pytest.mark.parametrize("change", HARMLESS)
def test_a_harmless_change_is_let_pass(change: str) -> None:
    assert breaking_changes(FROZEN, changed_by(HARMLESS[change])) == []


@pytest.mark.parametrize(
    ("change", "whom"),
    [
        ("a field is removed", "programs written for an earlier 1.x"),
        ("a limit is lifted", "programs written for an earlier 1.x"),
        ("a limit is raised", "programs written for an earlier 1.x"),
        ("an empty text becomes possible", "programs written for an earlier 1.x"),
        ("a new field is required", "the reading of messages written under an earlier 1.x"),
        ("a limit is lowered", "the reading of messages written under an earlier 1.x"),
        ("a pattern is added", "the reading of messages written under an earlier 1.x"),
    ],
)
def test_a_breaking_change_says_whom_it_breaks(change: str, whom: str) -> None:
    [found] = breaking_changes(FROZEN, changed_by(BREAKING[change][0]))

    assert found.breaks.startswith(whom)


def test_a_new_name_breaks_where_no_other_name_was_allowed() -> None:
    [found] = breaking_changes({"enum": ["a"]}, {"enum": ["a", "b"]})

    assert found.what == "'b' is a name beside which no other was allowed"


def test_a_definition_that_contains_itself_is_compared_once() -> None:
    node: Schema = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node"}, "name": {"type": "string"}},
    }
    before: Schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    after = copy.deepcopy(before)
    after["$defs"]["Node"]["properties"]["name"]["type"] = "integer"

    assert {one.where for one in breaking_changes(before, after)} == {"name"}


def test_the_failure_lists_the_changes_and_the_steps_to_a_new_major_version() -> None:
    changes = breaking_changes(FROZEN, changed_by(BREAKING["a field is removed"][0]))
    text = WHAT_TO_DO.format(changes="\n  - ".join(map(str, changes)))

    assert "  - workflow_id: was removed\n      breaks programs written for an earlier 1.x" in text
    assert all(f"  {step}. " in text for step in range(1, 7))
