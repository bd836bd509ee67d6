"""Conditions on payload data whose templates were rendered: a template gives text, and JSON has types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import from_json

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.events.json_values import JsonValue

_COMPARISONS = frozenset(("$gt", "$gte", "$lt", "$lte"))
# As Jinja writes these values of Python.
_WORDS: dict[str, JsonValue] = {"True": True, "False": False, "None": None}


def typed_conditions(given: object, rendered: object, is_template: Callable[[object], bool]) -> Any:
    """Return conditions in which what a template was rendered to also stands for the value that it reads as.

    ``{"rows": {"$gte": "{{ params.n }}"}}`` compares with the number that was rendered, and
    ``{"rows": "{{ params.n }}"}`` holds for the number and for its text. What was not a template stays.

    Args:
        given: the conditions as the user wrote them.
        rendered: the same after rendering.
        is_template: whether a value that was given is a template.

    Raises:
        ConfigurationError: a template gave what no event can match as it was meant; the message says where.
    """
    if not isinstance(given, Mapping) or not isinstance(rendered, Mapping) or len(given) != len(rendered):
        return rendered
    return {
        path: _condition(f"data[{path!r}]", before, wanted, is_template)
        for before, (path, wanted) in zip(given.values(), rendered.items(), strict=True)
    }


def _condition(name: str, given: Any, rendered: Any, is_template: Callable[[object], bool]) -> Any:
    if isinstance(rendered, str) and is_template(given):
        readings = _readings(rendered)
        return rendered if len(readings) == 1 else {"$in": readings}
    if not isinstance(given, Mapping) or not isinstance(rendered, Mapping) or len(given) != len(rendered):
        _refuse_within(name, given, rendered, is_template)
        return rendered
    if not any(key.startswith("$") for key in map(str, rendered)):
        _refuse_within(name, given, rendered, is_template)
        return rendered
    return {
        operator: _operand(f"{name}.{operator}", operator, before, operand, is_template)
        for before, (operator, operand) in zip(given.values(), rendered.items(), strict=True)
    }


def _operand(
    name: str, operator: str, given: Any, rendered: Any, is_template: Callable[[object], bool]
) -> Any:
    if isinstance(given, list | tuple) and isinstance(rendered, list | tuple) and len(given) == len(rendered):
        pairs = zip(given, rendered, strict=True)
        return [
            one for before, after in pairs for one in (_readings(after) if is_template(before) else [after])
        ]
    if not isinstance(rendered, str) or not is_template(given):
        return rendered
    if operator in _COMPARISONS and rendered.strip() in {"", "None"}:
        raise ConfigurationError(f"{name} was given, but its template was rendered to {rendered!r}")
    reading = _readings(rendered)[-1]
    if operator == "$exists" and isinstance(reading, bool):
        return reading
    is_number = isinstance(reading, int | float) and not isinstance(reading, bool)
    return reading if operator in _COMPARISONS and is_number else rendered


def _refuse_within(name: str, given: Any, rendered: Any, is_template: Callable[[object], bool]) -> None:
    """Refuse a template inside an object or a list that is compared as a whole, where its type is unclear."""
    if isinstance(given, Mapping) and isinstance(rendered, Mapping):
        pairs = [(f".{key}", before, rendered[key]) for key, before in given.items() if key in rendered]
    elif isinstance(given, list | tuple) and isinstance(rendered, list | tuple):
        pairs = [(f"[{at}]", *both) for at, both in enumerate(zip(given, rendered, strict=False))]
    else:
        return
    for place, before, after in pairs:
        if is_template(before) and len(_readings(after)) > 1:
            raise ConfigurationError(
                f"{name}{place} was rendered to the text {after!r}, which may be meant as another type: "
                "give it a condition of its own, by its dotted path"
            )
        _refuse_within(f"{name}{place}", before, after, is_template)


def _readings(rendered: Any) -> list[JsonValue]:
    """Return what a rendered text may stand for: itself, and the number, boolean or null that it reads as."""
    if not isinstance(rendered, str):
        return [rendered]
    if rendered in _WORDS:
        return [rendered, _WORDS[rendered]]
    try:
        value = from_json(rendered, allow_inf_nan=False)
    except ValueError:
        return [rendered]
    return [rendered] if isinstance(value, str | list | dict) else [rendered, value]
