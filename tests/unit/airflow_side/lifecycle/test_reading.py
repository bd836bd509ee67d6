"""Reading Airflow's objects: whatever cannot be read is unknown."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any

import pytest

from airflow_workflow_events.lifecycle.reading import (
    enum_value,
    get,
    number_of,
    run_identity,
    seconds_between,
    text_or_none,
    time_of,
)
from tests.unit.airflow_side.contexts import dag_context, task_context

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


class Unreadable:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"{name} cannot be read")


class State(Enum):
    RUNNING = "running"


class TextState(str, Enum):  # noqa: UP042 - as Airflow's are
    RUNNING = "running"

    def __str__(self) -> str:
        return f"State.{self.name}"


def test_the_task_instance_of_a_dag_callback_has_no_start() -> None:
    ti = dag_context()["ti"]

    with pytest.raises(AttributeError):
        _ = ti.start_date
    assert get(ti, "start_date") is None
    assert get(task_context()["ti"], "start_date") is not None


@pytest.mark.parametrize("source", [None, {}, object(), Unreadable(), {"other": 1}])
def test_what_is_not_there_or_cannot_be_read_is_unknown(source: object) -> None:
    assert get(source, "name") is None


@pytest.mark.parametrize(
    ("state", "value"),
    [
        (State.RUNNING, "running"),
        (TextState.RUNNING, "running"),
        ("running", "running"),
        (None, None),
        ("", None),
    ],
)
def test_a_state_is_its_enums_value_whatever_its_text_is(state: object, value: str | None) -> None:
    assert enum_value(state) == value


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), ("", None), ("a", "a"), (0, "0"), (False, "False")]
)
def test_empty_text_is_unknown(value: object, text: str | None) -> None:
    assert text_or_none(value) == text


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (NOON, NOON),
        (NOON.replace(tzinfo=None), NOON),
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=-5))), NOON),
        ("2026-11-23T12:00:00Z", NOON),
        ("2026-11-23T13:00:00+01:00", NOON),
        ("2026-11-23 12:00:00", NOON),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1_795_435_200, None),
        (NOON.date(), None),
        (dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))), None),
        ("0001-01-01T00:00:00+01:00", None),
    ],
)
def test_a_time_is_read_into_utc(value: object, time: dt.datetime | None) -> None:
    assert time_of(value) == time


def test_a_duration_needs_both_its_ends() -> None:
    assert seconds_between(NOON, NOON + dt.timedelta(milliseconds=1500)) == 1.5
    assert seconds_between(None, NOON) is None
    assert seconds_between(NOON, None) is None


@pytest.mark.parametrize("clear_number", ["two", object(), [], float("nan")])
def test_a_clear_number_that_is_no_number_is_unknown(clear_number: object) -> None:
    identity = run_identity({"dag_run": {"dag_id": "d", "run_id": "r", "clear_number": clear_number}})

    assert identity.clear_number is None


class OddZone(dt.tzinfo):
    def utcoffset(self, _moment: dt.datetime | None) -> dt.timedelta:
        raise ValueError("no offset")

    def dst(self, _moment: dt.datetime | None) -> None:
        return None

    def tzname(self, _moment: dt.datetime | None) -> None:
        return None


def test_a_time_whose_zone_cannot_tell_its_offset_is_unknown() -> None:
    assert time_of(dt.datetime(2026, 1, 1, tzinfo=OddZone())) is None


@pytest.mark.parametrize("value", [10**400, -(10**400), 2**63])
def test_a_number_that_no_database_has_is_unknown(value: int) -> None:
    assert number_of(value) is None
    assert number_of(2**63 - 1) == 2**63 - 1
