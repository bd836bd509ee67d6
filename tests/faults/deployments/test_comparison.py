"""The comparison tells what is missing, what is too much and what differs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults.deployments import causes
from tests.faults.deployments.comparison import compare
from tests.faults.deployments.sources import Kill, Transition

_BEGIN = datetime(2026, 11, 27, tzinfo=UTC)
_TRANSACTIONS = itertools.count(100)


def at(seconds: float) -> datetime:
    return _BEGIN + timedelta(seconds=seconds)


def run(state: str, previous: str | None, **fields: Any) -> Transition:
    """A transition of the run, by a scheduler."""
    return transition(state=state, previous=previous, task_id=None, map_index=None, try_number=None, **fields)


def transition(**fields: Any) -> Transition:
    """A transition of the run's one task, as its process reports it."""
    defaults: dict[str, Any] = {
        "at": at(1),
        "made_by": "scheduler" if fields.get("task_id", "work") is None else "api-server",
        "transaction": next(_TRANSACTIONS),
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "work",
        "map_index": -1,
        "try_number": 1,
        "operator": "PythonOperator",
        "queued_at": at(0),
        "started_at": at(1),
        "ended_at": at(2) if fields.get("state") != "running" else None,
        "clear_number": 0,
        "run_type": "manual",
    }
    return Transition(**{**defaults, **fields})


def message(
    event_type: str, state: str, event_id: str | None = None, emitted: float | None = None, **data: Any
) -> dict[str, Any]:
    """An event of the run or, with ``task``, of its task."""
    common = {
        "state": state,
        "started_at": at(1).isoformat(),
        "ended_at": None if state == "running" else at(2).isoformat(),
        "clear_number": 0,
        "run_type": "manual",
    }
    return {
        "event_id": event_id or event_type,
        "event_type": event_type,
        "workflow_id": "dag",
        "workflow_run_id": "run",
        "payload": {"data": {**common, **data}},
        "metadata": {"emitted_at": None if emitted is None else at(emitted).isoformat()},
    }


_TASK: dict[str, Any] = {"task": {"task_id": "work", "map_index": -1, "try_number": 1}}


def test_events_that_say_what_was_stored_leave_nothing_to_tell() -> None:
    found = compare(
        [
            run("running", "queued"),
            transition(state="running", previous="queued"),
            transition(state="success", previous="running"),
            run("success", "running"),
        ],
        [
            message("workflow.started", "running"),
            message("task.started", "running", **_TASK),
            message("task.completed", "success", **_TASK),
            message("workflow.completed", "success"),
        ],
    )
    assert (found.runs, found.tasks, found.expected) == (1, 1, 4)
    assert (found.missing.total(), found.unexplained, found.phantoms, found.differing) == (0, [], [], [])


def test_a_row_flushed_twice_in_one_transaction_has_changed_once() -> None:
    found = compare(
        [
            run("running", "queued", transaction=7, started_at=None),
            run("running", "running", transaction=7, started_at=at(1)),
        ],
        [message("workflow.started", "running")],
    )
    assert (found.expected, found.unexplained, found.differing) == (1, [], [])


def test_a_task_that_goes_on_after_a_deferral_has_started_once() -> None:
    states = ["queued", "running", "deferred", "scheduled", "queued", "running"]
    pairs = itertools.pairwise(states)
    found = compare(
        [transition(state=state, previous=previous) for previous, state in pairs],
        [message("task.started", "running", **_TASK)],
    )
    assert (found.expected, found.unexplained) == (1, [])


def test_a_missing_event_that_nothing_explains_is_named() -> None:
    found = compare([run("running", "queued"), transition(state="success", previous="running")], [])
    assert [one.key.event_type for one in found.unexplained] == ["workflow.started", "task.completed"]
    assert [one.key.event_type for one in found.missing_of_runs] == ["workflow.started"]
    assert "missing: Key(event_type='workflow.started'" in found.details()


def test_an_event_of_what_was_never_stored_is_a_phantom() -> None:
    found = compare([], [message("workflow.started", "running")])
    assert [one.key.event_type for one in found.phantoms] == ["workflow.started"]


def test_an_event_that_says_something_else_differs() -> None:
    found = compare([run("success", "running")], [message("workflow.completed", "success", clear_number=1)])
    assert (found.unexplained, found.phantoms) == ([], [])
    assert "clear_number" in found.differing[0]


def test_repetitions_and_contradictions_under_one_id_are_counted() -> None:
    found = compare(
        [run("success", "running")],
        [
            message("workflow.completed", "success", "one"),
            message("workflow.completed", "success", "one"),
            message("workflow.completed", "success", "one", run_type="scheduled"),
        ],
    )
    assert found.repeated == 2
    assert found.contradicting == ["workflow.completed one: run_type"]


def test_of_a_start_that_a_killed_scheduler_did_not_commit_the_one_that_was_stored_is_compared() -> None:
    row = run("running", "queued", started_at=at(20))
    events = [
        message("workflow.started", "running", "one", emitted=moment, started_at=at(moment).isoformat())
        for moment in (1, 20)
    ]
    found = compare([row], events, kills=[Kill("scheduler-2", at(2))])
    assert (found.untrue, found.differing, found.contradicting) == ({causes.ROLLED_BACK: 1}, [], [])
    for kills in ([], [Kill("api-server", at(2))], [Kill("scheduler", at(21))]):
        assert compare([row], events, kills=kills).contradicting == ["workflow.started one: started_at"]


def test_a_start_of_what_was_never_stored_is_a_phantom_unless_a_scheduler_was_killed_right_after_it() -> None:
    events = [message("workflow.started", "running", emitted=1)]
    assert compare([], events, kills=[Kill("scheduler", at(2))]).untrue == {causes.ROLLED_BACK: 1}
    for kill in (Kill("scheduler", at(60)), Kill("triggerer", at(2))):
        assert len(compare([], events, kills=[kill]).phantoms) == 1


def test_an_end_that_a_process_told_and_the_scheduler_stored_later_is_told_by_both() -> None:
    by_scheduler = transition(state="failed", previous="running", made_by="scheduler-2", ended_at=at(60))
    events = [
        message("task.failed", "failed", "one", **_TASK),
        message("task.failed", "failed", "one", **_TASK, reason="lost"),
    ]
    found = compare([by_scheduler], events)
    assert (found.told_again, found.contradicting) == ({causes.TOLD_BY_BOTH: 1}, [])
    by_process = transition(state="failed", previous="running")
    assert compare([by_process], events).contradicting == ["task.failed one: reason"]


@pytest.mark.parametrize(("stored_by", "later"), [("api-server", 5), ("scheduler", 32)])
def test_a_task_that_had_no_api_server_to_begin_with_tells_its_failure_alone(
    stored_by: str, later: float
) -> None:
    rows = [
        transition(state="running", previous="queued"),
        transition(state="failed", previous="running", made_by=stored_by, at=at(later)),
    ]
    events = [message("task.failed", "failed", **_TASK)]
    found = compare(rows, events, kills=[Kill("api-server", at(2))])
    assert (found.missing, found.unexplained) == ({causes.NOT_BEGUN: 1}, [])
    for kills in ([Kill("api-server", at(33))], [Kill("triggerer", at(2))]):
        found = compare([rows[0], replace(rows[1], made_by="api-server")], events, kills=kills)
        assert [one.key.event_type for one in found.unexplained] == ["task.started"]


@pytest.mark.parametrize("following", [None, "scheduled"])
def test_a_start_is_missing_for_a_kill_only_until_its_process_must_have_told_it(
    following: str | None,
) -> None:
    rows = [transition(state="running", previous="queued")]
    if following:
        rows.append(transition(state=following, previous="running", made_by="scheduler", at=at(60)))
    assert compare(rows, [], kills=[Kill("worker-1", at(9))]).missing == {causes.KILLED_BEFORE: 1}
    for kills in ([], [Kill("dag-processor", at(9))], [Kill("worker-1", at(50))], [Kill("worker-1", at(0))]):
        assert len(compare(rows, [], kills=kills).unexplained) == 1


def test_a_start_that_was_stored_a_moment_after_its_process_was_killed_is_missing_for_that_kill() -> None:
    rows = [
        transition(state="queued", previous="scheduled", made_by="scheduler-2"),
        transition(state="running", previous="queued", started_at=at(1), at=at(3)),
        transition(state=None, previous="running", made_by="scheduler", at=at(60)),
    ]
    kills = [Kill("scheduler-2", at(2))]
    found = compare(rows, [], kills=kills)
    assert (found.missing, found.unexplained) == ({causes.KILLED_BEFORE: 1}, [])
    lived_on = transition(state="success", previous="running", at=at(5))
    told = [message("task.completed", "success", **_TASK)]
    assert len(compare([*rows[:2], lived_on], told, kills=kills).unexplained) == 1


def test_a_task_ends_with_the_scheduler_that_queued_it_and_with_no_other() -> None:
    rows = [
        transition(state=state, previous=previous, made_by=made_by)
        for state, previous, made_by in [
            ("queued", "scheduled", "scheduler"),
            ("running", "queued", "api-server"),
            ("deferred", "running", "api-server"),
            ("queued", "scheduled", "scheduler-2"),
            ("success", "running", "api-server"),
        ]
    ]
    told = [message("task.started", "running", **_TASK)]
    assert compare(rows, told, kills=[Kill("scheduler-2", at(3))]).missing == {causes.KILLED_AFTER: 1}
    assert len(compare(rows, told, kills=[Kill("scheduler", at(3))]).unexplained) == 1


def test_tasks_ended_by_one_that_failed_fast_tell_nothing_and_the_one_itself_does() -> None:
    rows = [
        transition(state="running", previous="queued"),
        transition(state="skipped", previous="running"),
        transition(state="failed", previous="running", task_id="other"),
    ]
    found = compare(rows, [], failing_fast=["dag"])
    assert found.missing == {causes.TAKEN_BEFORE: 1, causes.FAIL_FAST: 1}
    assert [one.key.task_id for one in found.unexplained] == ["other"]
    assert len(compare(rows, []).unexplained) == 3
    assert len(compare(rows[:2], [], failing_fast=["dag"]).unexplained) == 2


def test_tasks_ended_along_with_their_run_by_the_scheduler_tell_nothing() -> None:
    ended = transition(state="skipped", previous="running", transaction=4, made_by="scheduler")
    end_of_run = run("failed", "running", transaction=4)
    told = [message("workflow.failed", "failed")]
    assert compare([ended, end_of_run], told).missing == {causes.TIMED_OUT: 1}
    assert len(compare([ended], []).unexplained) == 1


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (transition(state="skipped", previous=None), causes.SKIPPED),
        (
            transition(state="success", previous=None, made_by="scheduler-2", operator="EmptyOperator"),
            causes.BY_SCHEDULER,
        ),
    ],
)
def test_what_airflow_tells_no_listener_has_a_cause(row: Transition, cause: str) -> None:
    found = compare([row], [])
    assert (found.missing, found.unexplained) == ({cause: 1}, [])


@pytest.mark.parametrize(
    "row",
    [
        transition(state="success", previous=None, made_by="scheduler"),
        transition(state="failed", previous="running", made_by="scheduler"),
        transition(state="failed", previous="queued", made_by="scheduler"),
        transition(state="success", previous="running"),
        transition(state="success", previous="deferred", made_by="triggerer"),
        run("failed", "success", made_by="api-server"),
    ],
)
def test_an_end_that_airflow_tells_a_listener_has_no_cause_to_be_missing(row: Transition) -> None:
    assert len(compare([row], []).unexplained) == 1


def test_an_end_is_missing_for_a_kill_only_after_it_was_asked_for_until_right_after_it_was_stored() -> None:
    rows = [
        transition(state="queued", previous="scheduled", made_by="scheduler"),
        transition(state="success", previous="running", at=at(10), ended_at=at(8)),
    ]
    for moment in (9, 12):
        found = compare(rows, [], kills=[Kill("scheduler", at(moment))])
        assert (found.missing, found.unexplained) == ({causes.KILLED_AFTER: 1}, [])
    for kill in (Kill("scheduler", at(7)), Kill("scheduler", at(60)), Kill("triggerer", at(12))):
        assert len(compare(rows, [], kills=[kill]).unexplained) == 1


def test_a_task_changed_together_with_its_run_tells_nothing_of_its_own() -> None:
    found = compare(
        [
            run("failed", "running", transaction=3, made_by="api-server"),
            transition(state="failed", previous="running", transaction=3),
        ],
        [message("workflow.failed", "failed")],
    )
    assert (found.missing, found.unexplained) == ({causes.WITH_THE_RUN: 1}, [])


def test_the_start_of_a_run_of_a_command_has_no_hook() -> None:
    row = run("running", "queued", made_by="dags-test")
    assert compare([row], [], commands=["dags-test"]).missing == {causes.NO_START_HOOK: 1}
    assert len(compare([row], []).unexplained) == 1


def test_a_task_that_was_ended_by_another_and_told_its_own_end_is_refused() -> None:
    rows = [
        transition(state="failed", previous="running"),
        transition(state="failed", previous="running", task_id="other"),
    ]
    other: dict[str, Any] = {"task": {"task_id": "other", "map_index": -1, "try_number": 1}}
    events = [
        message("task.completed", "success", **_TASK),
        message("task.failed", "failed", **other),
    ]
    told = compare(rows, events, failing_fast=["dag"])
    assert (told.untrue, told.missing) == ({causes.REFUSED: 1}, {causes.FAIL_FAST: 1})
    assert len(compare(rows, events).phantoms) == 1


def test_an_end_of_another_try_than_the_one_that_was_taken_away_is_a_phantom() -> None:
    rows = [transition(state="scheduled", previous="running", made_by="scheduler")]
    event = message("task.completed", "success", **_TASK)
    assert compare(rows, [event]).untrue == {causes.REFUSED: 1}
    second: dict[str, Any] = {"task": {**_TASK["task"], "try_number": 2}}
    assert len(compare(rows, [message("task.completed", "success", **second)]).phantoms) == 1


def test_a_task_marked_while_it_ran_may_be_told_of_twice() -> None:
    row = transition(state="success", previous="running")
    events = [message("task.completed", "success", event_id, **_TASK) for event_id in ("by hand", "process")]
    marked = [("dag", "run", "work")]
    assert compare([row], events, marked=marked).untrue == {causes.TOLD_TWICE: 1}
    assert len(compare([row], events).phantoms) == 1


def test_a_task_marked_before_its_process_said_that_it_started_has_no_start() -> None:
    rows = [transition(state="running", previous="queued"), transition(state="success", previous="running")]
    events = [message("task.completed", "success", **_TASK)]
    found = compare(rows, events, marked=[("dag", "run", "work")])
    assert (found.missing, found.unexplained) == ({causes.TAKEN_BEFORE: 1}, [])
    assert [one.key.event_type for one in compare(rows, events).unexplained] == ["task.started"]
