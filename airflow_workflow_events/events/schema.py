"""The published contract: JSON Schema of the event, generated from the model and committed with it.

``make schema`` writes it anew after a compatible change, together with the AsyncAPI document that is built on
it, see :mod:`airflow_workflow_events.events.asyncapi`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_workflow_events.events.model import SCHEMA_VERSION, WorkflowEvent

SCHEMA_PATH = Path(__file__).parent / "schemas" / f"workflow-event-{SCHEMA_VERSION}.schema.json"

_EXAMPLE = {
    "event_id": "0c1f0c39-6f53-5b8f-9c1a-2f5c4a3f9d11",
    "event_type": "workflow.completed",
    "source": "airflow",
    "workflow_id": "daily_sales",
    "workflow_run_id": "scheduled__2026-11-22T00:00:00+00:00",
    "timestamp": "2026-11-23T02:44:35.216843Z",
    "payload": {"data": {}},
    "metadata": {"environment": "prod", "version": "1.0"},
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what stands on the topic, for readers in any language."""
    schema = WorkflowEvent.model_json_schema(mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        # The rest of a docstring is about Python arguments.
        part["description"] = part["description"].split("\n\n")[0].replace("``", "`").replace("\n", " ")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:airflow-workflow-events:workflow-event:{SCHEMA_VERSION}",
        **schema,
        "title": "WorkflowEvent",
        # They have defaults in Python, but an event on the topic has them, and readers may rely on it.
        "required": ["event_id", "timestamp", *schema["required"]],
        "examples": [_EXAMPLE],
    }


def render(document: Mapping[str, Any]) -> str:
    """Return a document as it is committed: indented, in a stable order, ending with a newline."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a committed document anew and say so on stdout.

    Args:
        path: its file; the directory is made if it is missing.
        document: what to write.

    Raises:
        OSError: the file cannot be written, e.g. in an installed package.
    """
    path.parent.mkdir(exist_ok=True)
    path.write_text(render(document), encoding="utf-8")
    print(f"wrote {path.name}")


def main() -> None:
    """Write the committed schema anew."""
    write(SCHEMA_PATH, json_schema())


if __name__ == "__main__":
    main()
