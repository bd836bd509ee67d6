"""Events as Airflow can store them: what is replaced, and that it says so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.storable import storable
from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.airflow_serde import deserialize, serialize
from tests.events import make_event
from tests.hostile import HOSTILE_DATA, hostile_event, hostile_names
from tests.unit.kafka.scripted import Record


def stored(event: WorkflowEvent) -> dict[str, Any]:
    """The event as a trigger that waits for any gives it to Airflow."""
    found = WorkflowEventTrigger(event_type=None).judge(Record(0, 0, 1, event).taken)  # type: ignore[arg-type]
    assert found is not None
    result: dict[str, Any] = found["event"]
    return result


def stored_data(data: dict[str, Any]) -> tuple[Any, list[str] | None]:
    event = stored(make_event(data=data))
    return event["payload"]["data"], event["metadata"].get("replaced")


def test_an_event_that_airflow_can_store_stays_as_it_is() -> None:
    event = {
        "event_id": "1",
        "payload": {"data": {"a": [1, 2.5, None, True, "ä", {}], "__var": {}}},
        "metadata": {},
    }

    assert storable(event) is event


def test_nul_becomes_the_replacement_character_and_its_paths_are_listed() -> None:
    assert stored_data({"message": "a\0b", "rows": [{"x": "\0"}]}) == (
        {"message": "a\ufffdb", "rows": [{"x": "\ufffd"}]},
        ["payload.data.message", "payload.data.rows[0].x"],
    )


def test_a_key_with_nul_does_not_displace_another() -> None:
    data, replaced = stored_data({"a\0": 1, "a\ufffd": 2})

    assert data == {"a\ufffd\ufffd": 1, "a\ufffd": 2}
    assert replaced == ["payload.data.a\ufffd\ufffd"]


def test_a_number_beyond_64_bits_becomes_its_text() -> None:
    assert stored_data({"a": 2**64, "b": 2**64 - 1, "c": [1e300], "d": -(2**63) - 1, "e": True}) == (
        {
            "a": "18446744073709551616",
            "b": 2**64 - 1,
            "c": ["1e+300"],
            "d": "-9223372036854775809",
            "e": True,
        },
        ["payload.data.a", "payload.data.c[0]", "payload.data.d"],
    )


@pytest.mark.parametrize("key", ["__classname__", "__id__", "__type"])
def test_a_key_that_airflow_takes_for_a_class_is_renamed(key: str) -> None:
    data, replaced = stored_data({"inner": {key: "builtins.int", "__version__": 1, "__var": 1}})

    assert data == {"inner": {f"\ufffd{key[1:]}": "builtins.int", "__version__": 1, "__var": 1}}
    assert replaced == [f"payload.data.inner.\ufffd{key[1:]}"]


def test_every_text_of_an_event_is_looked_at() -> None:
    event = stored(hostile_names())

    assert "\\u0000" not in json.dumps(event)
    assert set(event["metadata"]["replaced"]) >= {"event_id", "workflow_id", "metadata.tags[0]", "more\ufffd"}


def test_the_list_of_what_was_replaced_is_bounded() -> None:
    _, replaced = stored_data({"long" * 1_000: "\0", **HOSTILE_DATA["many fields"]})

    assert replaced is not None
    assert len(replaced) == 21
    assert replaced[-1] == "and 4981 more"
    assert max(map(len, replaced)) < 300


@pytest.mark.parametrize("name", HOSTILE_DATA)
def test_what_is_stored_survives_airflows_serialization_and_is_an_event(name: str) -> None:
    event = stored(hostile_event(name))

    assert deserialize(serialize(event)) == event
    assert WorkflowEvent.model_validate(event).event_id == event["event_id"]
