"""docs/waiting.md describes every parameter of the sensor and the trigger, with its default."""

from __future__ import annotations

import inspect
import re

import pytest

from airflow_workflow_events.sensors import WorkflowEventSensor
from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.docs.snippets import ROOT

_ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \|", re.MULTILINE)
#: What sensors tell their triggers, and nobody else has a use for.
_OF_SENSORS = {"once", "end_from_trigger", "until"}


@pytest.fixture
def tables() -> list[dict[str, str]]:
    """The two tables of parameters."""
    text = (ROOT / "docs" / "waiting.md").read_text()
    _, sensor, trigger = re.split(r"^Of `WorkflowEvent(?:Sensor|Trigger)`", text, flags=re.MULTILINE)
    return [dict(_ROW.findall(part)) for part in (sensor, trigger)]


def defaults(constructor: object) -> dict[str, str]:
    parameters = inspect.signature(constructor).parameters.values()  # type: ignore[arg-type]
    return {
        one.name: f'"{one.default}"' if isinstance(one.default, str) else str(one.default)
        for one in parameters
        if one.default is not inspect.Parameter.empty
    }


def test_every_parameter_of_the_sensor_is_described(tables: list[dict[str, str]]) -> None:
    assert tables[0] == defaults(inspect.unwrap(WorkflowEventSensor.__init__))


def test_every_parameter_of_the_trigger_is_described(tables: list[dict[str, str]]) -> None:
    described = defaults(WorkflowEventTrigger)
    shared = {name: described[name] for name in tables[0].keys() & described.keys() - _OF_SENSORS}

    assert {**shared, **tables[1]} == {
        name: value for name, value in described.items() if name not in _OF_SENSORS
    }
    assert all(tables[0][name] == value for name, value in shared.items())
