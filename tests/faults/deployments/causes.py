"""Why there is no event of a transition, or one of what was not stored: each cause with its evidence.

A cause is given only where the database's log, or a kill at that moment, shows it. What is left has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from tests.faults.deployments.entities import TASK_TYPES, Event, Expected, Key
from tests.faults.deployments.sources import Kill, Transition

_IN_A_PROCESS = {"running", "deferred", "up_for_reschedule"}
_ENDS = {"success", "failed", "up_for_retry", "skipped"}
# What is made anew when a scheduler does again what another did not commit.
_TIMES_OF_RUN = {"started_at", "ended_at", "duration_seconds"}
# A process that is killed so soon after Airflow has stored what it said can say no more of it.
_SOON = timedelta(seconds=10)
# Once Airflow has stored a start its process loads the DAG's file before it can say so.
_BEGINNING = timedelta(seconds=30)
# Between the note of a kill and the death of the process it may say a last thing.
_DYING = timedelta(seconds=1)
_WORKER = ("worker",)
_SCHEDULER = ("scheduler",)
_API_SERVER = ("api-server",)

# Why Airflow tells a listener nothing.
BY_SCHEDULER = "finished by the scheduler, without a process (EmptyOperator)"
SKIPPED = "skipped without a process (branch, short circuit, trigger rule, the run's end)"
TIMED_OUT = "ended by the scheduler along with its run (dagrun_timeout)"
WITH_THE_RUN = "changed along with a run that was marked by hand"
FAIL_FAST = "ended with a task that failed fast"
KILLED_BEFORE = "its process was killed before it could say so"
NOT_BEGUN = "its process had no API server to begin with, and told its failure alone"
KILLED_AFTER = "its process was killed as or after its end was stored"
TAKEN_BEFORE = "marked, cleared, reset or ended by the scheduler before its process could say so"
REFUSED = (
    "a try that was reset, cleared or marked meanwhile: its process told its own end, and Airflow refused it"
)
TOLD_TWICE = "marked by hand while it ran: its process told its own end as well"
ROLLED_BACK = "a change of a run that a killed scheduler did not commit"
NO_START_HOOK = "`airflow dags test` has no hook for a start"
TOLD_BY_BOTH = (
    "its process could not report its end, and the scheduler ended it again: two times under one id"
)


class Causes:
    """Why an event is missing, too much, or told again.

    Args:
        changes: of the database, one for each row and transaction, in their order.
        kills: the processes that were killed, and when.
        commands: names by which ``airflow dags test`` and the like were known to the database.
        failing_fast: DAGs with ``fail_fast``.
        marked: DAG, run and task of tasks that were marked by hand.
    """

    def __init__(
        self,
        changes: Sequence[Transition],
        kills: Sequence[Kill],
        commands: Sequence[str],
        failing_fast: Collection[str],
        marked: Collection[tuple[str, str, str]],
    ) -> None:
        self._kills = kills
        self._commands = commands
        self._failing_fast = failing_fast
        self._marked = marked
        self._runs = {(one.transaction, one.dag_id, one.run_id) for one in changes if one.task_id is None}
        self._of_run: dict[tuple[str, str], list[Transition]] = defaultdict(list)
        self._of_task: dict[tuple[object, ...], list[Transition]] = defaultdict(list)
        for one in changes:
            self._of_run[one.dag_id, one.run_id].append(one)
            self._of_task[one.dag_id, one.run_id, one.task_id, one.map_index].append(one)

    def of(self, expected: Expected) -> str | None:
        """Why there is no event, or ``None`` where nothing explains it."""
        row = expected.transition
        if row.task_id is None:
            return self._of_run_state(row)
        if row.state == "skipped" and row.previous not in _IN_A_PROCESS:
            return SKIPPED
        if self._failed_fast(row):
            return FAIL_FAST
        if row.made_by.startswith("scheduler"):
            return self._of_scheduler(row)
        if self._changed_with_run(row):
            return WITH_THE_RUN
        if row.state == "running":
            return self._of_start(row)
        return KILLED_AFTER if self._is_process_killed(row, row.at + _SOON) else None

    def of_telling_again(self, key: Key) -> str | None:
        """Why an event of a task is told again under its id, with other fields, or ``None``."""
        if key.task_id is None:
            return None
        ended_by_scheduler = any(
            row.made_by.startswith("scheduler")
            and row.previous in {"running", "queued"}
            and TASK_TYPES.get(row.state or "") == key.event_type
            for row in self._of_try(key)
        )
        return TOLD_BY_BOTH if ended_by_scheduler else None

    def is_rolled_back(self, first: Event, later: Event, differing: Collection[str]) -> bool:
        """Whether a run's event is told again because a killed scheduler did not commit the first."""
        if first.key.task_id is not None or not set(differing) <= _TIMES_OF_RUN:
            return False
        if first.emitted_at is None or later.emitted_at is None:
            return False
        return self._is_killed_between(first.emitted_at - _DYING, later.emitted_at, _SCHEDULER)

    def of_phantom(self, event: Event) -> str | None:
        """Why there is an event of what Airflow has not stored, or ``None`` where nothing explains it."""
        key = event.key
        if key.task_id is None:
            killed = event.emitted_at and self._is_killed_after(event.emitted_at - _DYING, _SCHEDULER)
            return ROLLED_BACK if killed else None
        if (key.dag_id, key.run_id, key.task_id) in self._marked and key.event_type != "task.started":
            return TOLD_TWICE
        return REFUSED if any(map(self._is_from_outside, self._of_try(key))) else None

    def _of_run_state(self, row: Transition) -> str | None:
        return NO_START_HOOK if row.state == "running" and row.made_by in self._commands else None

    def _of_scheduler(self, row: Transition) -> str | None:
        if row.state == "skipped" and self._changed_with_run(row):
            return TIMED_OUT
        without_process = row.operator == "EmptyOperator" and row.previous not in _IN_A_PROCESS
        return BY_SCHEDULER if without_process and row.state == "success" else None

    def _of_start(self, row: Transition) -> str | None:
        of_task = self._of_task[row.dag_id, row.run_id, row.task_id, row.map_index]
        following = next(iter(of_task[of_task.index(row) + 1 :]), None)
        until = row.at + _BEGINNING
        if following is not None:
            until = min(until, following.at)
        # Of a process that was killed, others alone say what became of it.
        silent = following is None or self._is_from_outside(following)
        if silent and self._is_process_killed(row, until):
            return KILLED_BEFORE
        if following is None or following.try_number != row.try_number:
            return None
        # Whoever stores the failure, and however long the API server is away.
        failed = following.state in {"failed", "up_for_retry"}
        if failed and self._is_killed_between(row.at, until, _API_SERVER):
            return NOT_BEGUN
        soon = following.at <= row.at + _BEGINNING
        return TAKEN_BEFORE if soon and self._is_from_outside(following) else None

    def _failed_fast(self, row: Transition) -> bool:
        """Whether another task of the run failed at that moment: Airflow stores that at once or later."""
        if row.dag_id not in self._failing_fast or row.state not in {"failed", "skipped"}:
            return False
        of_run = self._of_run[row.dag_id, row.run_id]
        at_once = [other for other in of_run if other.transaction == row.transaction]
        return any(
            other.state == "failed"
            and other.task_id not in {None, row.task_id}
            and other.at - row.at <= _SOON
            for other in (*at_once, *of_run[of_run.index(row) + 1 :])
        )

    def _is_from_outside(self, row: Transition) -> bool:
        """Whether a task was taken from the executor or its process, rather than reported on by it."""
        if row.previous not in {"queued", "running"}:
            return False
        return (
            (row.state in _ENDS and row.made_by.startswith("scheduler"))
            or row.state in {None, "restarting", "scheduled"}
            or self._changed_with_run(row)
            or self._failed_fast(row)
            or (row.dag_id, row.run_id, row.task_id) in self._marked
        )

    def _of_try(self, key: Key) -> list[Transition]:
        of_task = self._of_task[key.dag_id, key.run_id, key.task_id, key.map_index]
        return [row for row in of_task if row.try_number == key.try_number]

    def _changed_with_run(self, row: Transition) -> bool:
        return (row.transaction, row.dag_id, row.run_id) in self._runs

    def _is_process_killed(self, row: Transition, until: datetime) -> bool:
        """Whether a task's process was killed after it asked for what was stored, and before it could say it.

        Its request outlives it: the API server may store it a moment after the process is gone. A process
        ends with the worker it ran on, or with the scheduler that queued it, which is the worker itself.
        """
        asked = row.ended_at if row.state in _ENDS else row.started_at
        begin = min(asked or row.at, row.at)
        of_task = self._of_task[row.dag_id, row.run_id, row.task_id, row.map_index]
        earlier = of_task[: of_task.index(row)]
        queued_by = next((one.made_by for one in reversed(earlier) if one.state == "queued"), None)
        return self._is_killed_between(begin, until, _WORKER) or any(
            kill.part == queued_by and begin <= kill.at <= until for kill in self._kills
        )

    def _is_killed_after(self, at: datetime, parts: tuple[str, ...]) -> bool:
        return self._is_killed_between(at, at + _SOON, parts)

    def _is_killed_between(self, begin: datetime, end: datetime, parts: tuple[str, ...]) -> bool:
        return any(kill.part.startswith(parts) and begin <= kill.at <= end for kill in self._kills)
