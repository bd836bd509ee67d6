"""The event's model: strict with those who build, tolerant with what is read."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import pickle
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from airflow_workflow_events import (
    EventSource,
    EventType,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
)
from airflow_workflow_events.events import SCHEMA_VERSION
from tests.events import make_event

TOKYO = dt.timezone(dt.timedelta(hours=9))


def test_the_event_types_are_those_of_the_contract() -> None:
    assert {kind.value for kind in EventType} == {
        "workflow.triggered",
        "workflow.started",
        "workflow.completed",
        "workflow.failed",
        "workflow.deadline_missed",
        "task.started",
        "task.completed",
        "task.failed",
        "task.retrying",
        "task.skipped",
    }


def test_the_event_sources_are_those_of_the_contract() -> None:
    assert {source.value for source in EventSource} == {"airflow", "fastapi", "langgraph"}


def test_an_event_built_with_the_fewest_arguments_has_an_id_a_time_and_an_empty_payload() -> None:
    before = dt.datetime.now(dt.UTC)

    event = make_event()

    assert UUID(event.event_id).version == 4
    assert before <= event.timestamp <= dt.datetime.now(dt.UTC)
    assert event.payload == WorkflowEventPayload(data={})
    assert event.metadata.version == SCHEMA_VERSION == "1.0"


def test_two_events_built_alike_have_different_ids() -> None:
    assert make_event().event_id != make_event().event_id


def test_known_types_and_sources_given_as_text_become_members_of_their_enums() -> None:
    event = make_event(event_type="task.failed", source="langgraph")

    assert event.event_type is EventType.TASK_FAILED
    assert event.source is EventSource.LANGGRAPH


def test_a_domains_own_type_and_source_are_kept_as_text() -> None:
    event = make_event(event_type="orders.loaded", source="billing")

    assert (event.event_type, event.source) == ("orders.loaded", "billing")
    assert type(event.event_type) is str


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_type", ""),
        ("event_type", "with space"),
        ("event_type", "line\nbreak"),
        ("event_type", "x" * 256),
        ("event_type", None),
        ("source", ""),
        ("source", 3),
        ("workflow_id", ""),
        ("workflow_id", None),
        ("workflow_id", 7),
        ("workflow_id", "\ud800"),
        ("workflow_run_id", ""),
        ("event_id", ""),
        ("event_id", "x" * 256),
        ("event_id", 5),
        ("timestamp", "yesterday"),
        ("timestamp", dt.datetime(1, 1, 1, tzinfo=TOKYO)),
        ("payload", None),
        ("payload", "text"),
        ("metadata", None),
        ("metadata", {}),
        ("metadata", {"environment": ""}),
        ("metadata", {"environment": "p", "tags": "sales"}),
        ("metadata", {"environment": "p", "tags": [""] * 2 + ["\ud800"]}),
        ("metadata", {"environment": "p", "owner": "\ud800"}),
        ("metadata", {"environment": "p", "version": "1"}),
        ("metadata", {"environment": "p", "version": "1.0.0"}),
    ],
)
def test_a_field_no_reader_could_use_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        make_event(**{field: value})

    assert {str(problem["loc"][0]) for problem in caught.value.errors()} == {field}


@pytest.mark.parametrize("field", ["event_type", "source", "workflow_id", "workflow_run_id", "metadata"])
def test_a_required_field_that_is_missing_is_refused_by_its_name(field: str) -> None:
    fields = make_event().model_dump()
    del fields[field]

    with pytest.raises(ValidationError, match=field):
        WorkflowEvent(**fields)


def test_a_validation_error_does_not_quote_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        make_event(workflow_id=["canary"], payload={"data": {"password": b"canary"}})

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (dt.datetime.fromisoformat("2026-11-23T02:44:00"), dt.datetime(2026, 11, 23, 2, 44, tzinfo=dt.UTC)),
        (dt.datetime(2026, 11, 23, 9, tzinfo=TOKYO), dt.datetime(2026, 11, 23, tzinfo=dt.UTC)),
        ("2026-11-23T02:44:35.216843Z", dt.datetime(2026, 11, 23, 2, 44, 35, 216843, dt.UTC)),
        ("2026-11-23T02:44:35.216843", dt.datetime(2026, 11, 23, 2, 44, 35, 216843, dt.UTC)),
        ("2026-11-23T09:00:00+09:00", dt.datetime(2026, 11, 23, tzinfo=dt.UTC)),
    ],
    ids=str,
)
def test_times_are_put_into_utc_and_a_naive_one_is_taken_as_utc(
    given: dt.datetime | str, expected: dt.datetime
) -> None:
    event = make_event(timestamp=given, metadata={"environment": "p", "emitted_at": given})

    assert event.timestamp == event.metadata.emitted_at == expected
    assert event.timestamp.tzinfo is dt.UTC


def test_a_uuid_object_is_taken_as_event_id() -> None:
    text = "0c1f0c39-6f53-5b8f-9c1a-2f5c4a3f9d11"

    assert make_event(event_id=UUID(text)).event_id == text


def test_absent_text_in_the_metadata_is_null_and_never_empty() -> None:
    metadata = WorkflowEventMetadata(environment="p", owner="", team="", correlation_id="", traceparent="")

    assert (metadata.owner, metadata.team, metadata.correlation_id, metadata.traceparent) == (None,) * 4


@pytest.mark.parametrize(
    "metadata",
    [
        {"owner": "", "team": "", "correlation_id": None, "traceparent": "t", "producer": "ü"},
        {"tags": ["sales", ""], "truncated": [], "redacted": None},
        {"emitted_at": "2026-11-23T02:44:35.216843"},
        {"emitted_at": 1.5, "version": "1.7", "region": {"name": ["eu"]}, "none": None},
    ],
    ids=str,
)
def test_metadata_is_the_same_whether_it_comes_from_json_text_or_from_python(
    metadata: dict[str, Any],
) -> None:
    fields = {"environment": "p"} | metadata

    read = WorkflowEventMetadata.model_validate_json(json.dumps(fields))

    assert read == WorkflowEventMetadata(**fields)
    assert read.model_fields_set == WorkflowEventMetadata(**fields).model_fields_set


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"environment": "p", "owner": 3}},
        {"metadata": {"environment": "p", "team": ["a"]}},
        {"metadata": {"environment": "p", "tags": [None]}},
        {"payload": {"data": "text"}},
        {"payload": {"data": [1]}},
        {"payload": {"data": {"a": [2**1024]}}},
        {"event_id": 5},
    ],
    ids=str,
)
def test_what_is_wrong_in_json_text_is_refused_as_it_is_from_python(fields: dict[str, Any]) -> None:
    fields = json.loads(make_event().model_dump_json()) | fields

    with pytest.raises(ValidationError) as from_python:
        WorkflowEvent(**fields)
    with pytest.raises(ValidationError) as from_json:
        WorkflowEvent.model_validate_json(json.dumps(fields))

    assert str(from_json.value) == str(from_python.value)


@pytest.mark.parametrize("version", ["1.0", "1.7", "1.12"])
def test_every_version_of_the_same_major_is_accepted(version: str) -> None:
    assert WorkflowEventMetadata(environment="p", version=version).version == version


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0"])
def test_another_major_version_is_refused_and_the_message_says_to_upgrade(version: str) -> None:
    with pytest.raises(ValidationError, match=rf"metadata\.version: is {version}.*upgrade"):
        WorkflowEventMetadata(environment="p", version=version)


def test_unknown_fields_are_kept_at_every_level() -> None:
    event = make_event(
        severity="high",
        payload={"data": {}, "links": [1]},
        metadata={"environment": "p", "region": {"name": "eu"}},
    )

    assert event.model_extra == {"severity": "high"}
    assert event.payload.model_extra == {"links": [1]}
    assert event.metadata.model_extra == {"region": {"name": "eu"}}


def test_an_unknown_field_that_is_null_is_the_same_as_absent() -> None:
    assert make_event(event_id="1", severity=None, timestamp=0) == make_event(event_id="1", timestamp=0)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"extra": {"a": [b""]}}, "extra.a[0]"),
        ({"payload": {"extra": object()}}, "payload.extra"),
        ({"metadata": {"environment": "p", "extra": float("nan")}}, "metadata.extra"),
        ({"payload": {"data": {"a": {"b": [1, 2, 3, object()]}}}}, "payload.data.a.b[3]"),
    ],
)
def test_a_value_json_cannot_carry_is_refused_with_its_path_in_known_and_unknown_fields(
    fields: dict[str, Any], path: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        make_event(**fields)

    assert f"{path}: " in str(caught.value)


class Order(BaseModel):
    number: int
    at: dt.datetime


@dataclasses.dataclass
class Shipment:
    order: Order


def test_a_pydantic_model_or_a_dataclass_may_be_the_data() -> None:
    order = Order(number=1, at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    expected = {"number": 1, "at": "2026-01-02T00:00:00Z"}

    assert WorkflowEventPayload(data=order).data == expected
    assert WorkflowEventPayload(data=Shipment(order)).data == {"order": expected}


def test_the_payload_is_a_snapshot_that_later_changes_of_the_callers_objects_do_not_reach() -> None:
    data = {"rows": [1]}
    event = make_event(payload=WorkflowEventPayload(data=data))

    data["rows"].append(2)

    assert event.payload.data == {"rows": [1]}


def test_an_event_is_frozen() -> None:
    event = make_event()

    with pytest.raises(ValidationError, match="frozen"):
        event.workflow_id = "other"  # type: ignore[misc]


def test_the_ordering_key_joins_workflow_and_run() -> None:
    assert make_event(workflow_id="a", workflow_run_id="b/c").ordering_key == "a/b/c"


def test_an_event_survives_pickling_copying_and_dumping() -> None:
    event = make_event(severity="high", payload={"data": {"a": [1, None]}})

    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.deepcopy(event) == event
    assert WorkflowEvent.model_validate(event.model_dump()) == event
    assert WorkflowEvent.model_validate_json(event.model_dump_json()) == event


class SalesPayload(WorkflowEventPayload):
    order_id: str


class SalesEvent(WorkflowEvent):
    payload: SalesPayload
    shop: str


def test_a_subclass_may_add_fields_and_still_keeps_unknown_ones_to_the_rules_of_json() -> None:
    fields = make_event().model_dump() | {"shop": "berlin", "payload": {"order_id": "7"}}

    assert SalesEvent(**fields, extra=1).model_extra == {"extra": 1}
    with pytest.raises(ValidationError, match="extra: is bytes"):
        SalesEvent(**fields, extra=b"")
