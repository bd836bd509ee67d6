"""Events that JSON permits, and that Airflow's database or its serialization refuses."""

from __future__ import annotations

import json
from typing import Any

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.events import decode, to_json
from tests.events import make_event


def _nested(levels: int) -> Any:
    value: Any = "\0"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


HOSTILE_DATA: dict[str, dict[str, Any]] = {
    "NUL in a value": {"message": "line 3 ends with \0"},
    "NUL in a key": {"a\0": 1, "a\ufffd": 2, "b": {"\0\0": [{"c\0": "\0"}]}},
    "integers beyond 64 bits": {"a": 2**64, "b": [-(2**63) - 1, 2**1000], "c": {"d": -(2**1000)}},
    "floats beyond 64 bits": {"a": 1e300, "b": [-1e19], "c": 1.7e308},
    "the extremes of 64 bits": {"a": 2**64 - 1, "b": -(2**63), "c": 5e-324, "d": -0.0, "e": 1e18},
    "Airflow's class keys": {"__classname__": "builtins.int", "__version__": 1, "__data__": 1},
    "Airflow's old class keys": {"a": {"__type": "airflow.models.dag.DAG", "__var": {"dag_id": "x"}}},
    "Airflow's schema key": {"__id__": "airflow.sdk.definitions.asset.Asset", "uri": "x"},
    "as deep as an event may be": {"deep": _nested(99)},
    "a long string": {"text": "ä\0" * 100_000},
    "many fields": {f"field_{number}": "\0" for number in range(5_000)},
    "what is hostile elsewhere": {"text": "\u2028\ufffe\uffff\x1b[31m\r\n\u202e", "": {"": ""}},
}


def hostile_event(name: str, **fields: Any) -> WorkflowEvent:
    """The event of that name, as a reader has it that got it from Kafka."""
    return decode(to_json(make_event(data=HOSTILE_DATA[name], **fields)))


def hostile_names() -> WorkflowEvent:
    """An event whose every text ends with U+0000."""
    event = json.loads(to_json(make_event()))
    names = ("event_id", "source", "workflow_id", "workflow_run_id")
    event |= {name: event[name] + "\0" for name in names}
    event["metadata"] |= {"environment": "test\0", "tags": ["\0"], "extra\0": {"\0": "\0"}}
    event["more\0"] = "\0"
    return decode(json.dumps(event))
