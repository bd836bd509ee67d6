"""One thing that happened has one id, whoever reports it."""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess
import sys
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

import pytest

from airflow_workflow_events import EventType
from airflow_workflow_events.events import lifecycle_event_id
from airflow_workflow_events.events.identity import LIFECYCLE_NAMESPACE

STARTED = dt.datetime(2026, 11, 23, 2, 40, 1, tzinfo=dt.UTC)
RUN: dict[str, Any] = {
    "event_type": "workflow.completed",
    "workflow_id": "daily_sales",
    "workflow_run_id": "scheduled__2026-11-22T00:00:00+00:00",
    "source_instance": "airflow-eu",
    "clear_number": 0,
    "run_started_at": STARTED,
}
TASK: dict[str, Any] = RUN | {
    "event_type": "task.failed",
    "task_id": "load",
    "map_index": 2,
    "try_number": 1,
}


def test_the_namespace_is_derived_from_the_distributions_name() -> None:
    assert uuid5(NAMESPACE_DNS, "airflow-workflow-events") == LIFECYCLE_NAMESPACE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (RUN, "9d213665-e077-55f1-bbf1-dce5fb251681"),
        (TASK, "704781b0-e389-5460-ad37-1be9ef899519"),
        (
            {"event_type": "workflow.started", "workflow_id": "w", "workflow_run_id": "r"},
            "8cf3db66-6e69-5920-b773-1f1a7c339935",
        ),
        (
            {"event_type": "orders.loaded", "workflow_id": "täglich", "workflow_run_id": "🎉"},
            "6732ba06-2f5a-5078-ad60-27bb70f7ea76",
        ),
    ],
    ids=["run", "task", "fewest arguments", "beyond ASCII"],
)
def test_an_id_is_the_one_it_always_was(arguments: dict[str, Any], expected: str) -> None:
    assert lifecycle_event_id(**arguments) == expected


MARKED = dt.datetime(2026, 11, 23, 4, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            RUN | {"event_type": "workflow.started", "run_started_at": None, "run_queued_at": STARTED},
            "5b65a0de-e51f-5155-a395-7173c8894215",
        ),
        (
            TASK | {"region_id": "0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c10"},
            "21f8f896-144a-59f4-89f0-7cd33f9a0423",
        ),
        (TASK | {"marked_at": MARKED}, "c9a4da97-c5d0-5c6a-879d-789658a80e59"),
        (RUN | {"marked_at": MARKED, "deadline_id": "7"}, "48632c14-3435-588c-943c-a609647dd7f3"),
    ],
    ids=["a start", "of a loop", "marked by hand", "of a deadline as well"],
)
def test_what_only_some_have_is_in_their_ids_alone(arguments: dict[str, Any], expected: str) -> None:
    assert lifecycle_event_id(**arguments) == expected


def test_an_id_is_a_version_5_uuid() -> None:
    identifier = UUID(lifecycle_event_id(**TASK))

    assert identifier.version == 5


def test_another_process_with_another_hash_seed_gives_the_same_id() -> None:
    program = (
        "from airflow_workflow_events.events import lifecycle_event_id\n"
        "print(lifecycle_event_id(event_type='workflow.started', workflow_id='w', workflow_run_id='r'))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "7"},
    ).stdout.strip()

    assert printed == lifecycle_event_id(event_type="workflow.started", workflow_id="w", workflow_run_id="r")


@pytest.mark.parametrize(
    ("ingredient", "other"),
    [
        ("event_type", "task.completed"),
        ("workflow_id", "hourly_sales"),
        ("workflow_run_id", "manual__1"),
        ("source_instance", "airflow-us"),
        ("source_instance", None),
        ("clear_number", 1),
        ("clear_number", None),
        ("run_started_at", STARTED + dt.timedelta(microseconds=1)),
        ("run_started_at", None),
        ("task_id", "extract"),
        ("task_id", None),
        ("map_index", 3),
        ("map_index", None),
        ("try_number", 2),
        ("try_number", None),
        ("deadline_id", "2"),
    ],
)
def test_each_ingredient_makes_another_id(ingredient: str, other: object) -> None:
    assert lifecycle_event_id(**TASK) != lifecycle_event_id(**(TASK | {ingredient: other}))


def test_all_kinds_of_events_of_one_run_have_different_ids() -> None:
    assert len({lifecycle_event_id(**(TASK | {"event_type": kind})) for kind in EventType}) == len(EventType)


def test_an_enum_member_and_its_text_give_the_same_id() -> None:
    assert lifecycle_event_id(**(RUN | {"event_type": EventType.WORKFLOW_COMPLETED})) == lifecycle_event_id(
        **RUN
    )


@pytest.mark.parametrize(
    "start",
    [STARTED.replace(tzinfo=None), STARTED.astimezone(dt.timezone(dt.timedelta(hours=9)))],
    ids=["naive", "Tokyo"],
)
def test_the_same_instant_gives_the_same_id_however_it_is_written(start: dt.datetime) -> None:
    assert lifecycle_event_id(**(RUN | {"run_started_at": start})) == lifecycle_event_id(**RUN)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"map_index": -1}, {"map_index": None}), ({"source_instance": ""}, {"source_instance": None})],
)
def test_two_ways_to_say_nothing_give_the_same_id(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert lifecycle_event_id(**(TASK | one)) == lifecycle_event_id(**(TASK | other))


def test_neighbouring_ingredients_do_not_run_into_each_other() -> None:
    parts = ["a", "b", "a,b", 'a","b', "", "ab"]
    ids = {
        lifecycle_event_id(event_type="x", workflow_id=one, workflow_run_id=two)
        for one, two in itertools.product(parts, repeat=2)
    }

    assert len(ids) == len(parts) ** 2
