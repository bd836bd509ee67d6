"""What a change of the schema does to those who read events of version 1.0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Keywords that say nothing about which messages are valid.
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "$id", "$schema"})
#: What may grow: readers ignore fields they do not know.
_OPEN_OBJECTS = frozenset({"properties", "$defs"})
_MISSING = object()


def breaking_changes(frozen: Any, current: Any, path: str = "$") -> Iterator[str]:
    """Say what in ``current`` would break readers, or the reading of stored messages, of ``frozen``.

    Fields and definitions may be added, and names to a list of known names that other names may stand beside;
    whatever is there must stay as it is.
    """
    if not isinstance(frozen, dict) or not isinstance(current, dict):
        if frozen != current:
            yield f"{path}: was {frozen!r}, is {current!r}"
        return
    open_object = path.rsplit(".", 1)[-1] in _OPEN_OBJECTS
    for key in [*frozen, *(key for key in current if key not in frozen)]:
        if key in _ANNOTATIONS and not open_object:
            continue
        before, after = frozen.get(key, _MISSING), current.get(key, _MISSING)
        if after is _MISSING:
            yield f"{path}.{key}: was removed"
        elif before is _MISSING:
            if not open_object:
                yield f"{path}.{key}: was added"
        else:
            yield from _changes_of(key, before, after, path)


def _changes_of(key: str, before: Any, after: Any, path: str) -> Iterator[str]:
    if key == "required":
        yield from (f"{path}: {name} is no longer required" for name in sorted({*before} - {*after}))
        yield from (f"{path}: {name} is required now" for name in sorted({*after} - {*before}))
    elif key == "enum":
        yield from (f"{path}: {name!r} is no longer a known name" for name in before if name not in after)
    elif key == "anyOf" and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from breaking_changes(*pair, f"{path}.anyOf[{index}]")
    else:
        yield from breaking_changes(before, after, f"{path}.{key}")
