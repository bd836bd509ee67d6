"""What the tests of the hub share."""

from __future__ import annotations

import pytest

from airflow_workflow_events.kafka import hub
from tests.unit.kafka.stage import Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A hub whose time passes as the test says, and whose pauses are short."""
    made = Stage()
    monkeypatch.setattr(hub, "monotonic", made.clock)
    monkeypatch.setattr(hub, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(hub, "_LONGEST_PAUSE_SECONDS", 0.004)
    return made
