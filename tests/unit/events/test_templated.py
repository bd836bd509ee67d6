"""Conditions whose templates were rendered to text match values of the type that was meant."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.events.templated import typed_conditions
from tests.events import make_event

TEMPLATE = "{{ params.value }}"


def is_template(value: object) -> bool:
    return value == TEMPLATE


def rendered(given: Any, text: Any) -> Any:
    """What Airflow makes of it where the template is rendered to this text."""
    if isinstance(given, dict):
        return {key: rendered(value, text) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [rendered(value, text) for value in given]
    return text if is_template(given) else given


def matches(given: dict[str, Any], text: Any, data: dict[str, Any]) -> bool:
    conditions = typed_conditions(given, rendered(given, text), is_template)
    return EventFilter(data=conditions).matches(make_event(data=data))


@pytest.mark.parametrize(
    ("condition", "text", "found", "expected"),
    [
        ({"$gte": TEMPLATE}, "100", 120, True),
        ({"$gte": TEMPLATE}, "100", 20, False),
        ({"$gt": 10, "$lt": TEMPLATE}, "1e2", 99.5, True),
        ({"$lte": TEMPLATE}, "-1.5", -2, True),
        ({"$gte": TEMPLATE}, "2026-01-02", "2026-01-03", True),
        ({"$gte": TEMPLATE}, 100, 120, True),  # as a DAG renders it whose templates are native
        (TEMPLATE, "7", 7, True),
        (TEMPLATE, "7", "7", True),
        (TEMPLATE, "7", 8, False),
        (TEMPLATE, "007", "007", True),
        (TEMPLATE, "007", 7, False),
        (TEMPLATE, "True", True, True),
        (TEMPLATE, "true", True, True),
        (TEMPLATE, "True", 1, False),
        (TEMPLATE, "None", None, True),
        (TEMPLATE, "DE", "DE", True),
        (TEMPLATE, "[1]", "[1]", True),
        ({"$in": [TEMPLATE, "x"]}, "7", 7, True),
        ({"$in": [TEMPLATE, "x"]}, "7", "x", True),
        ({"$exists": TEMPLATE}, "True", 1, True),
        ({"$exists": TEMPLATE}, "False", 1, False),
        ({"$glob": TEMPLATE}, "7*", "70", True),
        ({"a": TEMPLATE, "b": [1]}, "text", {"a": "text", "b": [1]}, True),
        ("7", "no template", "7", True),
        ("7", "no template", 7, False),
        ({"$gte": "100"}, "no template", "99", True),
    ],
)
def test_what_a_template_gave_stands_for_the_value_it_reads_as(
    condition: Any, text: Any, found: Any, expected: bool
) -> None:
    assert matches({"x": condition}, text, {"x": found}) is expected


@pytest.mark.parametrize(
    ("condition", "text", "message"),
    [
        ({"$gte": TEMPLATE}, "", r"data\['x'\]\.\$gte was given, but its template was rendered to ''"),
        ({"$lt": TEMPLATE}, "None", r"rendered to 'None'"),
        ({"$gte": 1, "$lt": TEMPLATE}, "abc", "with a number and with a text"),
        ({"a": [{"b": TEMPLATE}]}, "7", r"data\['x'\]\.a\[0\]\.b was rendered to the text '7'.*dotted path"),
        ([TEMPLATE], "true", r"data\['x'\]\[0\] was rendered"),
    ],
)
def test_what_no_event_can_match_as_it_was_meant_is_refused_at_once(
    condition: Any, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        matches({"x": condition}, text, {})


@pytest.mark.parametrize("data", [None, TEMPLATE, [TEMPLATE], {}])
def test_what_is_no_object_of_conditions_is_left_to_the_filter(data: Any) -> None:
    assert typed_conditions(data, data, is_template) == data


@pytest.mark.parametrize(
    "wanted", [{"$gte": 1, "$lt": "a"}, {"$gt": "a", "$lte": 2.5}, {"$glob": "a*", "$gt": 1}]
)
def test_a_condition_that_no_value_can_meet_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="compares with a number and with a text"):
        EventFilter(data={"rows": wanted})
