"""Messages of 250,000 bytes that are no events, and that could cost far more to refuse than to write."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from airflow_workflow_events.events import to_json
from tests.events import make_event

_BYTES = 250_000
_PYDANTIC = tuple(int(number) for number in version("pydantic").split(".")[:2])


def _event(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(to_json(make_event()))
    metadata = changes.get("metadata")
    if isinstance(metadata, dict):
        changes["metadata"] = event["metadata"] | metadata
    return event | changes


def _message(event: dict[str, Any], raw: str = "") -> bytes:
    """The event as JSON, ``raw`` in the place of the text RAW."""
    return json.dumps(event).replace('"RAW"', raw).encode()


def _repeated(item: str) -> str:
    return "[" + ",".join([item] * (_BYTES // (len(item) + 1))) + "]"


def _fields(value: str) -> str:
    return "{" + ",".join(f'"f{number}":{value}' for number in range(_BYTES // (len(value) + 10))) + "}"


def _open_fields(value: str) -> dict[str, Any]:
    return {f"f{number}": json.loads(value) for number in range(_BYTES // (len(value) + 12))}


WRONG_ITEMS = ("1", "null", "[]", "{}", "1e9", '""', '"\\ud800"', "true")
_DATA: dict[str, str] = {
    "numbers, the last too large": _repeated("1")[:-1] + f",{2**1025}]",
    "empty lists, then one too deep": _repeated("[]")[:-1] + "," + "[" * 120 + "]" * 120 + "]",
    "empty objects, then one too deep": _repeated("{}")[:-1] + "," + "[" * 120 + "]" * 120 + "]",
    "integers of 1025 bits": _repeated(str(2**1025)),
    "integers of 4,000 digits": _repeated("9" * 4_000),
    "an integer of all digits": "9" * _BYTES,
    "a float of all digits": "0." + "9" * _BYTES,
    "a number out of range": "9" * 4_000 + "e" + "9" * 4_000,
    "brackets without an end": "[" * _BYTES,
    "nothing but nested lists": "[" * (_BYTES // 2) + "]" * (_BYTES // 2),
    "lists of 101 levels": _repeated("[" * 101 + "]" * 101),
    "backslashes": '"' + "\\\\" * (_BYTES // 2) + '\\ud800"',
    "escaped characters": '"' + "\\u0041" * (_BYTES // 6) + '\\ud800"',
    "objects with a field of 1025 bits": _fields(str(2**1025)),
    "infinities": _repeated("1e999"),
    "NaN": _repeated("NaN"),
    "a key that is the whole message": '{"' + "\\u0001" * (_BYTES // 6) + f'":{2**1025}}}',
    "a path of long keys": ('{"' + "k" * (_BYTES // 150) + '":') * 110 + "1" + "}" * 110,
}

BOMBS: dict[str, bytes] = {
    **{
        f"{field} of {item}": _message(_event(metadata={field: "RAW"}), _repeated(item))
        for field in ("tags", "truncated", "redacted")
        for item in WRONG_ITEMS
    },
    **{
        f"{field} is a list": _message(_event(**{field: "RAW"}), _repeated("1"))
        for field in ("event_id", "event_type", "source", "workflow_id", "timestamp", "payload", "metadata")
    },
    **{
        f"metadata.{field} is a list": _message(_event(metadata={field: "RAW"}), _repeated("1"))
        for field in ("environment", "version", "owner", "emitted_at")
    },
    **{
        f"data: {name}": _message(_event(payload={"data": "RAW"}), '{"a":' + raw + "}")
        for name, raw in _DATA.items()
    },
    **{f"a further field: {name}": _message(_event(more="RAW"), raw) for name, raw in _DATA.items()},
    **{
        f"{place}: many fields of {value}": _message(
            {
                "event": _event(event_id=1, **_open_fields(value)),
                "payload": _event(event_id=1, payload={"data": {}, **_open_fields(value)}),
                "metadata": _event(event_id=1, metadata=_open_fields(value)),
            }[place]
        )
        for place in ("event", "payload", "metadata")
        for value in ("null", "1", "[]", str(2**1025), "1e999")
    },
    "an envelope of text of backslashes": json.dumps(
        {"specversion": "1.0", "data": "{" + "\\" * (_BYTES // 4)}
    ).encode(),
    "an envelope of base64 of no JSON": json.dumps(
        {"specversion": "1.0", "data_base64": "AAAA" * (_BYTES // 4)}
    ).encode(),
    "text without an end": b'"' + b"x" * _BYTES,
    "a list of numbers": _repeated("1").encode(),
    "a text of backslashes": json.dumps("\\" * (_BYTES // 2)).encode(),
}

# To pydantic's parser before 2.14, a list that holds something costs eight times what an empty one does.
_DEAREST_LISTS = "[]" if _PYDANTIC >= (2, 14) else "[" * 90 + "]" * 90
#: The dearest message of that size that is an event.
DEAREST_EVENT = _message(_event(payload={"data": "RAW"}), '{"a":' + _repeated(_DEAREST_LISTS) + "}")
