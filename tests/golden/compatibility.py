"""What a change of the schema does to those who read events of version 1.x.

Two promises are kept. A program written for an earlier 1.x reads what is written now: so nothing it may rely
on goes away. And what was written under an earlier 1.x can still be read: so nothing is demanded that it
lacks. Only what neither can notice is free: a new optional field, a new known name beside which any other may
stand, words for people, and which parts have a definition of their own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

Schema = dict[str, Any]

#: Keywords that say nothing about which messages are valid.
_ANNOTATIONS = frozenset(
    {"$comment", "$defs", "$id", "$schema", "default", "deprecated", "description", "examples", "title"}
)
#: Keywords whose value is the schema of what is inside, or a boolean.
_CONTENT = frozenset({"additionalProperties", "items"})
_SMALLEST = frozenset({"exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum"})
_LARGEST = frozenset({"exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum"})


class Change(NamedTuple):
    """One breaking change.

    Attributes:
        where: the field, e.g. ``metadata.owner``; ``event`` for the whole.
        what: what became of it.
        breaks: whom it breaks.
    """

    where: str
    what: str
    breaks: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n      breaks {self.breaks}"


_READERS = "programs written for an earlier 1.x, which rely on it"
_STORED = "the reading of messages written under an earlier 1.x"
_BOTH = f"{_READERS}, and {_STORED}"


def breaking_changes(before: Schema, after: Schema) -> list[Change]:
    """List what in ``after`` breaks those who rely on ``before``, field by field.

    Args:
        before: a JSON Schema whose references all lead to its own ``$defs``.
        after: the schema it has become.
    """
    return list(_compare(_Place(before, before, after, after, "event", frozenset())))


class _Place(NamedTuple):
    """Two schemas of one field, and the documents their references lead into."""

    before: Schema
    before_root: Schema
    after: Schema
    after_root: Schema
    where: str
    seen: frozenset[tuple[str, str]]

    def at(self, where: str, before: Schema, after: Schema) -> _Place:
        return self._replace(where=where, before=before, after=after)

    def field(self, name: str) -> str:
        return name if self.where == "event" else f"{self.where}.{name}"


def _compare(place: _Place) -> Iterator[Change]:
    references = (str(place.before.get("$ref")), str(place.after.get("$ref")))
    if "$ref" in place.before or "$ref" in place.after:
        if references in place.seen:  # a definition that contains itself
            return
        place = place._replace(seen=place.seen | {references})
    before = _alternatives(place.before, place.before_root)
    after = _alternatives(place.after, place.after_root)
    for kind in {**before, **after}:
        for old, new in zip_longest(before.get(kind, []), after.get(kind, [])):
            if new is None:
                yield Change(place.where, f"can no longer be {kind}", _STORED)
            elif old is None:
                yield Change(place.where, f"can be {kind} now", _READERS)
            else:
                is_open = kind.startswith("string") and "string" in after  # any other name may be used
                yield from _compare_kind(place.at(place.where, old, new), is_open)


def _alternatives(schema: Schema, root: Schema) -> dict[str, list[Schema]]:
    """Return what a field can be, by kind; ``anyOf``, a list of types and references are ways to write it."""
    found: defaultdict[str, list[Schema]] = defaultdict(list)
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "$ref"}}
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        branches = [{**target, **rest}]
    elif "anyOf" in schema:
        branches = [{**branch, **_constraints(rest)} for branch in schema["anyOf"]]
    else:
        types = rest.get("type", "anything")
        for kind in types if isinstance(types, list) else [types]:
            name = f"{kind} of known names" if "enum" in rest else kind
            found[name].append({key: value for key, value in _constraints(rest).items() if key != "type"})
        return found
    for branch in branches:
        for name, ones in _alternatives(branch, root).items():
            found[name].extend(ones)
    return found


def _constraints(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in _ANNOTATIONS}


def _compare_kind(place: _Place, is_open: bool) -> Iterator[Change]:
    for keyword in {**place.before, **place.after}:
        before, after = place.before.get(keyword), place.after.get(keyword)
        if keyword == "properties":
            yield from _compare_fields(place, before or {}, after or {})
        elif keyword == "required":
            yield from _compare_required(place, before or [], after or [])
        elif keyword == "enum":
            yield from _compare_names(place, before or [], after or [], is_open)
        elif keyword in _CONTENT and isinstance(before, dict) and isinstance(after, dict):
            yield from _compare(place.at(f"{place.where}[]", before, after))
        elif before != after and not (keyword in _CONTENT and _is_anything(before) and _is_anything(after)):
            whom = _whom_a_constraint_breaks(keyword, before, after)
            yield Change(place.where, f"{keyword} was {_text(before)}, is {_text(after)}", whom)


def _compare_fields(place: _Place, before: Schema, after: Schema) -> Iterator[Change]:
    for name, schema in before.items():
        if name in after:
            yield from _compare(place.at(place.field(name), schema, after[name]))
        else:
            yield Change(place.field(name), "was removed", _READERS)


def _compare_required(place: _Place, before: list[str], after: list[str]) -> Iterator[Change]:
    for name in sorted({*before} - {*after}):
        yield Change(place.field(name), "is no longer always there", _READERS)
    for name in sorted({*after} - {*before}):
        yield Change(place.field(name), "is required now", _STORED)


def _compare_names(place: _Place, before: list[Any], after: list[Any], is_open: bool) -> Iterator[Change]:
    for name in before:
        if name not in after:
            yield Change(place.where, f"{name!r} is no longer a known name", _BOTH)
    for name in after:
        if name not in before and not is_open:
            yield Change(place.where, f"{name!r} is a name beside which no other was allowed", _READERS)


def _whom_a_constraint_breaks(keyword: str, before: Any, after: Any) -> str:
    if _is_anything(before):
        return _STORED
    if _is_anything(after):
        return _READERS
    if keyword in _SMALLEST | _LARGEST:
        return _READERS if (after < before) == (keyword in _SMALLEST) else _STORED
    return _BOTH


def _is_anything(value: Any) -> bool:
    return value is None or value is True


def _text(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
