"""Messages of schema 1.0 as they stood on a topic, and the schema they were written to.

They are never edited and never removed: consumers have stored such messages, and must be able to read them
for ever. A new kind of message gets a new file. ``<name>.json`` is a message's value, up to the newline at
the end of the file; ``<name>.headers.json`` its headers, where it has any.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent
SCHEMA_FILE = DIRECTORY / "workflow-event-1.0.schema.json"

NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.json") if "." not in path.stem))


def value_of(name: str) -> bytes:
    """The message's value."""
    return (DIRECTORY / f"{name}.json").read_bytes().removesuffix(b"\n")


def headers_of(name: str) -> dict[str, str | bytes | None]:
    """The message's headers, in their order; empty where it has none."""
    path = DIRECTORY / f"{name}.headers.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def document_of(name: str) -> dict[str, Any]:
    """The event's JSON: the value, or what is in its envelope."""
    document: dict[str, Any] = json.loads(value_of(name))
    return document["data"] if "specversion" in document else document
