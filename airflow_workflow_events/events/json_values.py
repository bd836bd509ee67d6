"""Turning Python values into the values JSON can carry, or refusing them with their path.

An event is a message between programs in different languages, so what leaves must be JSON that every reader
understands (RFC 8259, with I-JSON's limits of RFC 7493 on numbers and strings). Values are converted when the
event is built rather than when it is sent: the caller gets the error where the mistake is, and the event is a
snapshot that later changes of the caller's objects cannot reach.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from airflow_workflow_events.errors import EventValidationError

#: JSON parsers, pydantic's among them, stop at about 200 levels; the event itself uses two of them.
MAX_DEPTH = 100

#: The largest integer an IEEE 754 double can approximate has 1024 bits; beyond it other readers see Infinity.
MAX_INTEGER_BITS = 1024

_N, _I = b"NI"
_MAX_INTEGER = 2**MAX_INTEGER_BITS
_MIN_INTEGER = -_MAX_INTEGER
_PYDANTIC = frozenset(("pydantic", "pydantic_core", "pydantic_extra_types"))
_NOT_FINITE = "is NaN or infinite, which JSON has no number for: use null"

JsonValue = Any
"""``None``, ``bool``, ``int``, ``float``, ``str``, or a list or string-keyed dict of these."""


def is_within_limits(value: JsonValue, depth: int = 0) -> bool:
    """Whether what a JSON parser has made keeps :data:`MAX_DEPTH`, :data:`MAX_INTEGER_BITS` and is finite.

    Args:
        value: the object or array.
        depth: how many levels it lies deep. Default 0.
    """
    if depth >= MAX_DEPTH:
        return False
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is int:
            within = _MIN_INTEGER < item < _MAX_INTEGER
        else:
            within = math.isfinite(item) if kind is float else is_within_limits(item, depth + 1)
        if not within:
            return False
    return True


def may_name_non_finite(json: bytes) -> bool:
    """Whether JSON text has NaN or Infinity in it, as a number that JSON has not or as a mere word.

    Args:
        json: the text, in UTF-8.
    """
    # One byte is found ten times as fast as a word, and most events have neither letter.
    return (_N in json and b"NaN" in json) or (_I in json and b"Infinity" in json)


def to_json_object(value: object, path: str) -> dict[str, JsonValue]:
    """Return ``value`` as a JSON object.

    Args:
        value: a mapping, a dataclass instance or a pydantic model.
        path: where the value stands in the event, for the error.

    Raises:
        EventValidationError: it is none of these, or something inside it cannot be carried by JSON.
    """
    converted = to_json_value(value, path)
    if not isinstance(converted, dict):
        raise EventValidationError(path, f"must be a mapping or a pydantic model, not {_kind(value)}")
    return converted


def to_json_value(value: object, path: str) -> JsonValue:
    """Return ``value`` as JSON carries it: a copy that shares nothing mutable with the original.

    Plain JSON values stay as they are. Datetimes, dates, times and durations become ISO 8601 strings (a UTC
    datetime ends with ``Z``), decimals and UUIDs strings, enums their value, sets lists in a stable order,
    dataclasses objects; any other sequence or mapping becomes a list or an object. A pydantic model, wherever
    it stands, becomes what its own ``model_dump(mode="json")`` gives: what it excludes stays out.

    Args:
        value: the value to convert.
        path: where it stands in the event, e.g. ``payload.data``; used in the error.

    Raises:
        EventValidationError: a value that JSON cannot carry, with its path: a circular reference, NaN or an
            infinity, bytes, an arbitrary object, a lone surrogate, a key that is no string.
    """
    try:
        return _convert(value, 0, set())
    except _RefusedError as refusal:
        raise EventValidationError(path + "".join(reversed(refusal.segments)), refusal.reason) from None


class _RefusedError(Exception):
    """A value was refused; each container on the way out adds its segment of the path.

    Building the path only on the way out keeps the common case, a payload without mistakes, cheap.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.segments: list[str] = []


def _convert(value: Any, depth: int, ancestors: set[int]) -> JsonValue:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _unicode(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return _integer(value)
    if kind is float:
        return _finite(value)
    if kind is dict:
        return _object(value, id(value), depth, ancestors)
    if kind is list or kind is tuple:
        return _array(value, id(value), depth, ancestors)
    return _convert_other(value, depth, ancestors)


def _convert_other(value: Any, depth: int, ancestors: set[int]) -> JsonValue:
    """Handle the types that are rarer in payloads; enums come first, as they may also be strings."""
    if isinstance(value, Enum):
        return _convert(value.value, depth, ancestors)
    if isinstance(value, str):
        # A subclass may override __str__; joining copies the characters themselves.
        return _unicode("".join(value))
    if isinstance(value, dt.datetime):
        text = value.isoformat()
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return _duration(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal | numbers.Real):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise _RefusedError("is bytes, which JSON cannot carry: decode it, or send base64 text")
    return _convert_container(value, depth, ancestors)


def _convert_container(value: Any, depth: int, ancestors: set[int]) -> JsonValue:
    marker = id(value)
    if isinstance(value, BaseModel):
        return _dumped(value, lambda: value.model_dump(mode="json", warnings=False), depth, ancestors)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        serializer = getattr(value, "__pydantic_serializer__", None)
        if serializer is not None:
            return _dumped(
                value, lambda: serializer.to_python(value, mode="json", warnings=False), depth, ancestors
            )
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _object(fields, marker, depth, ancestors)
    if isinstance(value, Mapping):
        return _object(value, marker, depth, ancestors)
    if isinstance(value, AbstractSet):
        return sorted(_array(value, marker, depth, ancestors), key=_stable_order)
    if isinstance(value, Sequence):
        return _array(value, marker, depth, ancestors)
    kind: Any = type(value)
    if _is_of_pydantic(kind) and not hasattr(value, "get_secret_value"):
        adapter = _adapter_of(kind)
        return _dumped(value, lambda: adapter.dump_python(value, mode="json"), depth, ancestors)
    raise _RefusedError(
        f"is {_kind(value)}, which JSON cannot carry: pass a plain value, a pydantic model or a dataclass"
    )


def _is_of_pydantic(kind: type) -> bool:
    """Whether a type is one of pydantic's own, such as ``HttpUrl``, or derived from one."""
    return any(base.__module__.partition(".")[0] in _PYDANTIC for base in kind.__mro__)


@lru_cache(maxsize=64)
def _adapter_of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _dumped(value: Any, dump: Callable[[], Any], depth: int, ancestors: set[int]) -> JsonValue:
    """Return what a model's own JSON dump is: it says what leaves, under which name and in which form."""
    try:
        dumped = dump()
    except Exception as error:  # noqa: BLE001 - a user's serializers may raise anything
        # pydantic does not say where the value stands. What the error says may quote the value.
        if isinstance(value, BaseModel):
            excluded = {name for name, field in type(value).model_fields.items() if field.exclude}
            fields = {name: item for name, item in value if name not in excluded}
            _object(fields, id(value), depth, ancestors)
        elif dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            _object(fields, id(value), depth, ancestors)
        raise _RefusedError(
            f"is {_kind(value)}, whose serialisation failed with {type(error).__name__}: see its serializers"
        ) from None
    return _convert(dumped, depth, ancestors)


def _object(value: Mapping[Any, Any], marker: int, depth: int, ancestors: set[int]) -> dict[str, JsonValue]:
    _enter(marker, depth, ancestors)
    result: dict[str, JsonValue] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else _key(key)
        if name in result:
            raise _RefusedError(f"has the key {name!r} twice once its keys are strings: rename one")
        try:
            result[name] = _convert(item, depth + 1, ancestors)
        except _RefusedError as refusal:
            refusal.segments.append(f".{name}")
            raise
    ancestors.discard(marker)
    return result


def _array(value: Iterable[Any], marker: int, depth: int, ancestors: set[int]) -> list[JsonValue]:
    _enter(marker, depth, ancestors)
    result: list[JsonValue] = []
    for item in value:
        try:
            result.append(_convert(item, depth + 1, ancestors))
        except _RefusedError as refusal:
            refusal.segments.append(f"[{len(result)}]")
            raise
    ancestors.discard(marker)
    return result


def _enter(marker: int, depth: int, ancestors: set[int]) -> None:
    if marker in ancestors:
        raise _RefusedError("refers back to an object that contains it: break the cycle")
    if depth >= MAX_DEPTH:
        raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels: flatten it")
    ancestors.add(marker)


def _key(key: object) -> str:
    """Return a mapping's key as JSON has it: a string."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return _unicode("".join(key))
    if isinstance(key, bool):
        raise _RefusedError("has a bool as a key: JSON keys are strings")
    if isinstance(key, numbers.Integral):
        return str(_integer(int(key)))
    if isinstance(key, dt.date | UUID | Decimal):
        return str(_convert_other(key, 0, set()))
    raise _RefusedError(f"has a key that is {_kind(key)}: JSON keys are strings")


def _unicode(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _RefusedError(
            "holds a lone surrogate, which is no Unicode text: decode with errors='replace'"
        ) from None
    return value


def _number(value: Decimal | numbers.Real) -> JsonValue:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise _RefusedError(_NOT_FINITE)
        return str(value)  # a double would lose digits
    if isinstance(value, numbers.Integral):
        return _integer(int(value))
    try:
        return _finite(float(value))
    except OverflowError:
        raise _RefusedError("is too large for a floating-point number: send it as a string") from None


def _integer(value: int) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise _RefusedError(f"is an integer of more than {MAX_INTEGER_BITS} bits: send it as a string")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise _RefusedError(_NOT_FINITE)
    return value


def _duration(value: dt.timedelta) -> str:
    """ISO 8601 duration of days and seconds, e.g. ``P1DT3.5S``; the sign stands in front."""
    sign, value = ("-", -value) if value < dt.timedelta(0) else ("", value)
    seconds = f"{value.seconds}.{value.microseconds:06d}".rstrip("0").rstrip(".")
    return f"{sign}P{value.days}DT{seconds}S"


def _stable_order(value: JsonValue) -> tuple[str, str]:
    """Sets have no order; sorting by type and text gives equal sets equal bytes."""
    return (type(value).__name__, repr(value))


def _kind(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"an object of type {name}"
