"""Which events somebody waits for, as plain values: globs for names, conditions for payload data."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from airflow_workflow_events.errors import ConfigurationError, EventValidationError, printable
from airflow_workflow_events.events.json_values import JsonValue, to_json_value
from airflow_workflow_events.events.model import EventType, WorkflowEvent

log: logging.Logger = logging.getLogger(__name__)

Names = str | Sequence[str] | None
"""A name or a glob (``*``, ``?``, ``[seq]``), several of which one must match, or ``None`` for any."""

_GLOB = re.compile(r"[*?\[]")
_MISSING: Any = object()
# No event has room for more elements. A longer one may be a key, up to what Python may refuse to read as a
# number (sys.int_info.str_digits_check_threshold).
_MAX_INDEX_DIGITS = 9
_MAX_DIGITS = 640
_Condition = Callable[[Any], bool]


class EventFilter:
    """Says of an event whether somebody waits for it; everything that is given must hold.

    Names are compared with case, as Airflow and Kafka do; a glob is Python's :mod:`fnmatch`.

    Args:
        workflow_id: name or glob, or several of which one must match. Default ``None``: any.
        workflow_run_id: likewise.
        event_type: likewise, e.g. ``EventType.WORKFLOW_COMPLETED`` or ``"workflow.*"``.
        source: likewise.
        environment: likewise, of ``metadata.environment``.
        data: conditions on ``payload.data``: a dotted path, e.g. ``"order.country"`` or ``"rows.0.id"``, to
            the value it must have, which stands for what an event would carry of it (a date for its ISO
            text). An object whose keys begin with ``$`` holds operators instead:
            ``{"rows": {"$gte": 100, "$lt": 1000}}``; there are ``$in``, ``$gt``, ``$gte``, ``$lt``, ``$lte``,
            ``$glob`` and ``$exists``. Default: none.

    Raises:
        ConfigurationError: a condition cannot be used; the message names it.
    """

    __slots__ = ("_checks", "parameters", "workflow_ids")

    def __init__(
        self,
        *,
        workflow_id: Names = None,
        workflow_run_id: Names = None,
        event_type: Names = None,
        source: Names = None,
        environment: Names = None,
        data: Mapping[str, JsonValue] | None = None,
    ) -> None:
        names = {
            "workflow_id": workflow_id,
            "workflow_run_id": workflow_run_id,
            "event_type": event_type,
            "source": source,
            "environment": environment,
        }
        given = {field: _names(field, value) for field, value in names.items() if value is not None}
        self.parameters: dict[str, Any] = {
            field: value[0] if len(value) == 1 else list(value) for field, value in given.items()
        }
        """The conditions as JSON values: ``EventFilter(**parameters)`` makes an equal filter."""
        for mistake in _unknown_types(given.get("event_type", ())):
            log.warning("%s", mistake)
        self.workflow_ids: frozenset[str] | None = None
        """The only workflows whose events can match, where they are named without a glob."""
        if "workflow_id" in given and not any(map(_GLOB.search, given["workflow_id"])):
            self.workflow_ids = frozenset(given["workflow_id"])
        self._checks: list[Callable[[WorkflowEvent], bool]] = [
            _check_of_field(field, _one_of(value)) for field, value in given.items()
        ]
        if data is not None and (paths := _paths(data)):
            conditions = [(path, *_condition(path, wanted)) for path, wanted in paths.items()]
            self.parameters["data"] = paths
            self._checks.append(
                lambda event: all(holds(_at(event.payload.data, parts)) for _, parts, holds in conditions)
            )

    def matches(self, event: WorkflowEvent) -> bool:
        """Whether every condition holds for the event.

        Raises:
            ConfigurationError: a condition cannot be applied to the event.
        """
        try:
            # A loop: all() and a generator take four times as long where nothing is asked for.
            for check in self._checks:
                if not check(event):
                    return False
        except Exception as error:
            raise ConfigurationError(
                f"the filter cannot be applied to event {printable(event.event_id)}: {type(error).__name__}"
            ) from error
        return True

    def __repr__(self) -> str:
        conditions = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({conditions})"


def failure_filter(fail_on: Names, **same: Any) -> EventFilter | None:
    """Return which events end somebody's waiting with failure; ``None`` for none.

    Args:
        fail_on: their types; an empty list stands for none.
        **same: what they have in common with the events that are waited for.

    Raises:
        ConfigurationError: this is no type.
    """
    if fail_on is None or (not isinstance(fail_on, str) and not fail_on):
        return None
    try:
        return EventFilter(event_type=fail_on, **same)
    except ConfigurationError as error:
        EventFilter(**same)  # is it one of these?
        raise ConfigurationError(
            f"fail_on is {fail_on!r}: use an event type, a glob or a list of them"
        ) from error


def _names(field: str, value: object) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if (
        not isinstance(values, Sequence)
        or not values
        or not all(isinstance(one, str) and one.strip() for one in values)
    ):
        raise ConfigurationError(f"{field} is {value!r}: use a name, a glob or a list of them")
    return tuple(str(one) for one in values)  # an enum becomes the text it is


def _one_of(names: tuple[str, ...]) -> _Condition:
    if any(map(_GLOB.search, names)):
        matches = re.compile("|".join(map(fnmatch.translate, names))).match
        return lambda name: matches(name) is not None
    return frozenset(names).__contains__


def _check_of_field(field: str, matches: _Condition) -> Callable[[WorkflowEvent], bool]:
    if field == "environment":
        return lambda event: matches(event.metadata.environment)
    return lambda event: matches(getattr(event, field))


def _paths(data: object) -> dict[str, JsonValue]:
    if not isinstance(data, Mapping) or not all(isinstance(path, str) and path for path in data):
        raise ConfigurationError(
            'data must map dotted paths in payload.data to what stands there, e.g. {"order.country": "DE"}'
        )
    for path in data:
        if path.startswith("payload.data."):
            raise ConfigurationError(
                f"data[{path!r}]: a path begins below payload.data, e.g. 'order.country'"
            )
    try:
        return {path: to_json_value(wanted, f"data[{path!r}]") for path, wanted in data.items()}
    except EventValidationError as error:
        raise ConfigurationError(str(error)) from None


def _unknown_types(names: Iterable[str]) -> list[str]:
    """Return a line for each type that looks like one of a lifecycle, but is none of them."""
    prefixes = tuple({kind.partition(".")[0] + "." for kind in EventType})
    known = [kind.value for kind in EventType]
    return [
        f"event_type {printable(name)!r} is none of a workflow's or task's: did you mean "
        f"{' or '.join(difflib.get_close_matches(name, known, 1) or known)}?"
        for name in names
        if name.startswith(prefixes) and name not in known and not _GLOB.search(name)
    ]


def _condition(path: str, wanted: JsonValue) -> tuple[list[str], _Condition]:
    parts = path.split(".")
    if any(part.isdecimal() and len(part) > _MAX_DIGITS for part in parts):
        raise ConfigurationError(
            f"data[{printable(path, 60)!r}]: an index or a key of digits has {_MAX_DIGITS} of them at most"
        )
    if not isinstance(wanted, dict) or not any(key.startswith("$") for key in wanted):
        return parts, lambda found: _equal(found, wanted)
    if plain := [key for key in wanted if not key.startswith("$")]:
        raise ConfigurationError(
            f"data[{path!r}] mixes operators with the key {plain[0]!r}: give a path of its own to that, "
            f"data[{f'{path}.{plain[0]}'!r}]"
        )
    operators = []
    for name, operand in wanted.items():
        if name not in _OPERATORS:
            raise ConfigurationError(
                f"data[{path!r}] has the operator {name}: use one of {', '.join(_OPERATORS)}"
            )
        operators.append(_OPERATORS[name](f"data[{path!r}].{name}", operand))
    kinds = {_COMPARED[isinstance(operand, str)] for name, operand in wanted.items() if name in _OF_ONE_TYPE}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"data[{path!r}] compares with a number and with a text, and no value is both: use one type"
        )
    return parts, lambda found: all(holds(found) for holds in operators)


def _at(value: JsonValue, parts: Sequence[str]) -> JsonValue:
    """Return what stands at a path, or ``_MISSING``. A key that has dots itself is found as the last part."""
    for index, part in enumerate(parts):
        if isinstance(value, dict):
            rest = ".".join(parts[index:])
            if rest in value:
                return value[rest]
            value = value.get(part, _MISSING)
        elif isinstance(value, list) and _is_index(part, len(value)):
            value = value[int(part)]
        else:
            return _MISSING
    return value


def _is_index(part: str, length: int) -> bool:
    return part.isdecimal() and len(part) <= _MAX_INDEX_DIGITS and int(part) < length


def _equal(found: JsonValue, wanted: JsonValue) -> bool:
    # Python takes True for 1; JSON does not, at any depth.
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, dict) and isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(_equal(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_equal, found, wanted))
    return bool(found == wanted)


def _in(name: str, operand: JsonValue) -> _Condition:
    if not isinstance(operand, list | tuple):
        raise ConfigurationError(f"{name} must be a list of values")
    return lambda found: any(_equal(found, one) for one in operand)


def _exists(name: str, operand: JsonValue) -> _Condition:
    if not isinstance(operand, bool):
        raise ConfigurationError(f"{name} must be true or false")
    return lambda found: (found is not _MISSING) == operand


def _glob(name: str, operand: JsonValue) -> _Condition:
    if not isinstance(operand, str):
        raise ConfigurationError(f"{name} must be a text, such as 'eu-*'")
    matches = re.compile(fnmatch.translate(operand)).match
    return lambda found: isinstance(found, str) and matches(found) is not None


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[str, JsonValue], _Condition]:
    def condition(name: str, operand: JsonValue) -> _Condition:
        if isinstance(operand, bool) or not isinstance(operand, int | float | str):
            raise ConfigurationError(f"{name} must be a number or a text")
        kind = str if isinstance(operand, str) else (int, float)
        return lambda found: (
            isinstance(found, kind) and not isinstance(found, bool) and compare(found, operand)
        )

    return condition


_OPERATORS: dict[str, Callable[[str, JsonValue], _Condition]] = {
    "$in": _in,
    "$gt": _ordered(lambda found, bound: found > bound),
    "$gte": _ordered(lambda found, bound: found >= bound),
    "$lt": _ordered(lambda found, bound: found < bound),
    "$lte": _ordered(lambda found, bound: found <= bound),
    "$glob": _glob,
    "$exists": _exists,
}

_OF_ONE_TYPE = frozenset(("$gt", "$gte", "$lt", "$lte", "$glob"))
_COMPARED = ("number", "text")
