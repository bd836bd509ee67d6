"""Events in the form that Airflow can store and read back.

JSON permits more than Airflow's database and its serialization do, and what they refuse ends the triggerer or
fails the task. An event comes from anybody, so it is changed where it has to be, and says so.
"""

from __future__ import annotations

from typing import Any

from airflow_workflow_events.events.json_values import JsonValue

#: Stands for what was replaced; Unicode has it for that.
REPLACEMENT = "\ufffd"
# Where jsonb is used (PostgreSQL: XComs, what a trigger has fired), U+0000 is refused.
_NUL = "\0"
# Airflow's processes talk in msgpack, whose integers have 64 bits. jsonb writes a large float in full, so it
# comes back as an integer.
_MAX_NUMBER, _MIN_NUMBER = 2**64, -(2**63)
# Airflow takes an object with one of these keys for a class of its own, or refuses it.
_RESERVED_KEYS = frozenset(("__classname__", "__id__", "__type"))

_MAX_PATHS = 20
_MAX_PATH_CHARACTERS = 200


def storable(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event as Airflow can store it.

    U+0000 becomes U+FFFD, a number that does not fit into 64 bits its text, and a key that Airflow's
    serialization reserves (``__type``, ``__id__``, ``__classname__``) begins with U+FFFD. The paths of what
    was replaced are listed in ``metadata.replaced``, which is absent where nothing was.

    Args:
        event: the event as JSON values.
    """
    paths: list[str] = []
    changed: dict[str, Any] = _replace(event, "", paths)
    if not paths:
        return event
    listed = paths[:_MAX_PATHS]
    if len(paths) > _MAX_PATHS:
        listed.append(f"and {len(paths) - _MAX_PATHS} more")
    changed["metadata"] = {**changed["metadata"], "replaced": listed}
    return changed


def _replace(value: JsonValue, path: str, paths: list[str]) -> JsonValue:
    if isinstance(value, str):
        if _NUL not in value:
            return value
        paths.append(path)
        return value.replace(_NUL, REPLACEMENT)
    if isinstance(value, dict):
        return _replace_in_object(value, path, paths)
    if isinstance(value, list):
        return [_replace(item, _shortened(f"{path}[{index}]"), paths) for index, item in enumerate(value)]
    if isinstance(value, int | float) and not _MIN_NUMBER <= value < _MAX_NUMBER:
        paths.append(path)
        return str(value)
    return value


def _replace_in_object(value: dict[str, JsonValue], path: str, paths: list[str]) -> dict[str, JsonValue]:
    result: dict[str, JsonValue] = {}
    for key, item in value.items():
        name = _replace_key(key)
        if name != key:
            while name in value or name in result:  # no other field may be lost
                name += REPLACEMENT
        item_path = _shortened(f"{path}.{name}" if path else name)
        if name != key:
            paths.append(item_path)
        result[name] = _replace(item, item_path, paths)
    return result


def _replace_key(key: str) -> str:
    if key in _RESERVED_KEYS:
        return REPLACEMENT + key[1:]
    return key.replace(_NUL, REPLACEMENT)


def _shortened(path: str) -> str:
    return path if len(path) <= _MAX_PATH_CHARACTERS else f"{path[:_MAX_PATH_CHARACTERS]}..."
