"""A filter says of an event whether somebody waits for it."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest

from airflow_workflow_events import ConfigurationError, EventType, WorkflowEventMetadata
from airflow_workflow_events.events.filters import EventFilter
from tests.events import make_event

EVENT = make_event(
    workflow_id="sales_eu",
    workflow_run_id="manual__2026-01-01",
    event_type=EventType.WORKFLOW_COMPLETED,
    source="airflow",
    payload={
        "data": {
            "rows": 120,
            "ratio": 0.5,
            "ok": True,
            "none": None,
            "country": "DE",
            "order": {"country": "AT", "lines": [{"id": 7}, {"id": 8}]},
            "a.b": 1,
            "x": {"y.z": 2},
        }
    },
    metadata=WorkflowEventMetadata(environment="prod-eu"),
)

FIELDS = {
    "workflow_id": ("sales_eu", "sales_*", "sales_us", "SALES_EU"),
    "workflow_run_id": ("manual__2026-01-01", "manual__*", "scheduled__*", "manual"),
    "event_type": ("workflow.completed", "workflow.*", "workflow.failed", "task.*"),
    "source": ("airflow", "air?low", "other", "air"),
    "environment": ("prod-eu", "prod-[de]*", "dev", "prod"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_matches_by_name_glob_or_one_of_several(field: str) -> None:
    name, glob, other, another = FIELDS[field]

    for matching in (name, glob, [other, name], (another, glob)):
        assert EventFilter(**{field: matching}).matches(EVENT), matching  # type: ignore[arg-type]
    for not_matching in (other, another, [other, another]):
        assert not EventFilter(**{field: not_matching}).matches(EVENT), not_matching  # type: ignore[arg-type]


def test_nothing_given_matches_everything_and_all_given_must_hold() -> None:
    assert EventFilter().matches(EVENT)
    assert EventFilter(workflow_id="sales_*", environment="prod-*", data={"rows": 120}).matches(EVENT)
    assert not EventFilter(workflow_id="sales_*", environment="dev").matches(EVENT)
    assert not EventFilter(workflow_id="sales_*", data={"rows": 121}).matches(EVENT)


@pytest.mark.parametrize("name", ["a|b", "a.b", "a\nb", "(", "a+"])
def test_what_is_no_glob_is_taken_as_it_stands(name: str) -> None:
    event = make_event(workflow_id=name)

    assert EventFilter(workflow_id=name).matches(event)
    assert EventFilter(workflow_id=[name, "*x"]).matches(event)
    assert not EventFilter(workflow_id=name).matches(make_event(workflow_id="aXb"))


DATA: list[tuple[dict[str, Any], bool]] = [
    ({"rows": 120}, True),
    ({"rows": 120.0}, True),
    ({"rows": "120"}, False),
    ({"ok": True}, True),
    ({"ok": 1}, False),
    ({"rows": True}, False),
    ({"none": None}, True),
    ({"absent": None}, False),
    ({"order.country": "AT"}, True),
    ({"order": {"country": "AT", "lines": [{"id": 7}, {"id": 8}]}}, True),
    ({"order": {}}, False),
    ({"order.lines.1.id": 8}, True),
    ({"order.lines.2.id": 8}, False),
    ({"order.lines.-1.id": 8}, False),
    ({"order.lines.²": {"id": 8}}, False),
    ({"country.x": 1}, False),
    ({"a.b": 1}, True),
    ({"x.y.z": 2}, True),
    ({"rows": {"$gt": 119}}, True),
    ({"rows": {"$gt": 120}}, False),
    ({"rows": {"$gte": 120, "$lt": 121}}, True),
    ({"rows": {"$lte": 119}}, False),
    ({"ratio": {"$lt": 1}}, True),
    ({"country": {"$gte": "DA"}}, True),
    ({"country": {"$gt": 1}}, False),
    ({"rows": {"$gt": "1"}}, False),
    ({"ok": {"$gte": 0}}, False),
    ({"country": {"$in": ["AT", "DE"]}}, True),
    ({"country": {"$in": []}}, False),
    ({"ok": {"$in": [1]}}, False),
    ({"none": {"$in": [None]}}, True),
    ({"absent": {"$in": [None]}}, False),
    ({"country": {"$glob": "D?"}}, True),
    ({"rows": {"$glob": "*"}}, False),
    ({"none": {"$exists": True}}, True),
    ({"absent": {"$exists": False}}, True),
    ({"order.absent": {"$exists": True}}, False),
    ({"rows": {"$exists": True, "$gt": 200}}, False),
]


@pytest.mark.parametrize(("data", "matches"), DATA, ids=json.dumps)
def test_conditions_on_payload_data(data: dict[str, Any], matches: bool) -> None:
    assert EventFilter(data=data).matches(EVENT) is matches


@pytest.mark.parametrize(
    ("wanted", "found", "matches"),
    [
        ([True], [1], False),
        ({"a": 1}, {"a": True}, False),
        ({"a": [0]}, {"a": [False]}, False),
        ([1, {"a": 1.0}], [1.0, {"a": 1}], True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)
def test_true_is_not_one_at_any_depth(wanted: Any, found: Any, matches: bool) -> None:
    event = make_event(payload={"data": {"x": found}})

    assert EventFilter(data={"x": wanted}).matches(event) is matches
    assert EventFilter(data={"x": {"$in": [wanted]}}).matches(event) is matches


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workflow_id": ""}, "workflow_id"),
        ({"workflow_id": []}, "workflow_id"),
        ({"workflow_id": " "}, "workflow_id"),
        ({"source": 1}, "source"),
        ({"event_type": [None]}, "event_type"),
        ({"environment": b"prod"}, "environment"),
        ({"data": ["rows"]}, "data"),
        ({"data": {"": 1}}, "data"),
        ({"data": {1: 1}}, "data"),
        ({"data": {"payload.data.rows": 1}}, "a path begins below payload.data"),
        ({"data": ""}, "data must map"),
        ({"data": {"x": {(1, 2): 3}}}, r"data\['x'\].*key"),
        ({"data": {"x": float("nan")}}, r"data\['x'\].*NaN"),
        ({"data": {"x": b"raw"}}, r"data\['x'\].*bytes"),
        ({"data": {"rows": {"$gt": 1, "id": 2}}}, r"mixes operators with the key 'id': .* data\['rows.id'\]"),
        ({"data": {"rows": {"$regex": "x"}}}, r"\$regex.*\$in"),
        ({"data": {"rows": {"$in": 1}}}, r"data\['rows'\]\.\$in"),
        ({"data": {"rows": {"$gt": None}}}, r"\$gt"),
        ({"data": {"rows": {"$gt": True}}}, r"\$gt"),
        ({"data": {"rows": {"$glob": 1}}}, r"\$glob"),
        ({"data": {"rows": {"$exists": 1}}}, r"\$exists"),
    ],
)
def test_a_condition_that_cannot_be_used_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        EventFilter(**options)


def test_a_value_is_compared_as_an_event_carries_it() -> None:
    day, number = dt.date(2026, 1, 2), uuid.uuid4()
    event = make_event(payload={"data": {"day": day, "number": number}})

    same = EventFilter(data={"day": day, "number": {"$in": [number]}})

    assert same.matches(event)
    assert json.loads(json.dumps(same.parameters)) == same.parameters
    assert not EventFilter(data={"day": dt.date(2026, 1, 3)}).matches(event)


def test_parameters_are_json_and_make_an_equal_filter() -> None:
    one = EventFilter(
        workflow_id=("a", "b*"), event_type=EventType.TASK_FAILED, data={"rows": {"$gt": 1}}, source="x"
    )
    parameters = json.loads(json.dumps(one.parameters))

    assert EventFilter(**parameters).parameters == parameters == one.parameters
    assert "workflow_id=['a', 'b*']" in repr(one)


def test_workflows_are_known_where_they_are_named() -> None:
    assert EventFilter(workflow_id="a").workflow_ids == frozenset({"a"})
    assert EventFilter(workflow_id=["a", "b"]).workflow_ids == frozenset({"a", "b"})
    assert EventFilter(workflow_id=["a", "b*"]).workflow_ids is None
    assert EventFilter().workflow_ids is None


def test_an_index_that_python_cannot_read_as_a_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"data\['rows\.9+\.\.\.'\]: an index or a key of digits"):
        EventFilter(data={"rows." + "9" * 5_000: 1})


@pytest.mark.parametrize("digits", ["9" * 9, "1" * 10, "1" * 640])
def test_a_key_of_many_digits_is_found_and_an_index_behind_the_end_is_not(digits: str) -> None:
    wanted = EventFilter(data={f"rows.{digits}": 1})

    assert wanted.matches(make_event(data={"rows": {digits: 1}}))
    assert not wanted.matches(make_event(data={"rows": [1]}))


def test_a_condition_that_cannot_be_applied_is_an_error_that_names_the_event() -> None:
    odd = EventFilter(workflow_id="orders")
    odd._checks.append(lambda event: bool(event.payload.data["amount"] > 1))

    with pytest.raises(ConfigurationError, match="the filter cannot be applied to event id-1: TypeError"):
        odd.matches(make_event(workflow_id="orders", event_id="id-1", data={"amount": "a password"}))


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("workflow.complete", "is none of a workflow's or task's: did you mean workflow.completed?"),
        ("task.fail", "did you mean task.failed?"),
        ("workflow.complet*", None),
        ("orders.complete", None),
        ("task.completed", None),
    ],
)
def test_a_type_that_only_looks_like_one_of_a_lifecycle_is_told(
    caplog: pytest.LogCaptureFixture, name: str, warning: str | None
) -> None:
    assert EventFilter(event_type=["workflow.failed", name]).parameters["event_type"][1] == name
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == (0 if warning is None else 1)
    assert warning is None or warning in told[0]
