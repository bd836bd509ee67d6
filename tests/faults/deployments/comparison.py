"""Compares the events on a topic with the transitions that Airflow's database has seen, row by row.

It shares no code with the product: what an event is called, and what is in it, stands here a second time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.faults.deployments.sources import Transition

_RUN_TYPES = {"running": "workflow.started", "success": "workflow.completed", "failed": "workflow.failed"}
_TASK_TYPES = {
    "running": "task.started",
    "success": "task.completed",
    "failed": "task.failed",
    "up_for_retry": "task.retrying",
    "skipped": "task.skipped",
}
_WITHOUT_A_TYPE = {"upstream_failed", "removed", "restarting"}
_IN_A_PROCESS = {"running", "deferred", "up_for_reschedule"}
# What is made anew when a scheduler does again what another did not commit.
_TIMES_OF_RUN = {"started_at", "ended_at", "duration_seconds"}
# A process that is killed so soon after Airflow has stored what it said can say no more of it.
_SOON = timedelta(seconds=10)
# A task has its process's times, the row those of the API server, which may be busy or away for a while.
_SKEW = timedelta(minutes=5)

# Why Airflow tells a listener nothing.
BY_SCHEDULER = "finished by the scheduler, without a process (EmptyOperator)"
SKIPPED = "skipped without a process (branch, short circuit, trigger rule, the run's end)"
TAKEN_AWAY = "ended by the scheduler while it ran or was deferred (dagrun_timeout, killed, lost)"
WITH_THE_RUN = "changed along with a run that was marked by hand"
FAIL_FAST = "ended with a task that failed fast"
BY_TRIGGERER = "ended by the triggerer"
KILLED_BEFORE = "its process was killed before it could say so"
NOT_BEGUN = "its process had no API server to begin with, and told its failure alone"
KILLED_AFTER = "its process was killed after its end was stored"
TAKEN_BEFORE = "marked, cleared or reset before its process could say so"
REFUSED = (
    "a try that was reset, cleared or marked meanwhile: its process told its own end, and Airflow refused it"
)
TOLD_TWICE = "marked by hand while it ran: its process told its own end as well"
ROLLED_BACK = "a change of a run that a killed scheduler did not commit"
NO_START_HOOK = "`airflow dags test` has no hook for a start"
MARKED_AGAIN = "a run marked once more: Airflow keeps its end, and so does the event"
TOLD_BY_BOTH = (
    "its process could not report its end, and the scheduler ended it again: two times under one id"
)


class Key(NamedTuple):
    """What an event is about."""

    event_type: str
    dag_id: str
    run_id: str
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """A transition that has an event type."""

    key: Key
    transition: Transition


class Event(NamedTuple):
    """An event of the topic, repetitions left out."""

    key: Key
    event_id: str
    data: dict[str, Any]


@dataclass
class Comparison:
    """What came of it."""

    runs: int = 0
    tasks: int = 0
    expected: int = 0
    without_a_type: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    unexplained: list[Expected] = field(default_factory=list)
    untrue: Counter[str] = field(default_factory=Counter)
    phantoms: list[Event] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    largest_skew: timedelta = timedelta(0)
    repeated: int = 0
    contradicting: list[str] = field(default_factory=list)
    told_again: Counter[str] = field(default_factory=Counter)

    @property
    def missing_of_runs(self) -> list[Expected]:
        """Events of runs among the unexplained."""
        return [one for one in self.unexplained if one.key.task_id is None]

    def summary(self) -> str:
        """One line for the table of the fault suite."""
        causes = "; ".join(f"{count} {cause}" for cause, count in self.missing.most_common())
        untrue = "; ".join(f"{count} {cause}" for cause, count in self.untrue.most_common())
        both = "; ".join(f"{count} {cause}" for cause, count in self.told_again.most_common())
        return (
            f"{self.runs} runs, {self.tasks} tasks, {self.expected} expected, {self.missing.total()} missing "
            f"({causes or '-'}), {len(self.unexplained)} without a cause, {self.untrue.total()} not stored "
            f"({untrue or '-'}), {len(self.phantoms)} phantom, "
            f"{len(self.differing)} differ (a task's times by {self.largest_skew.total_seconds():.1f} s), "
            f"{self.repeated} repeated, {len(self.contradicting)} contradict, "
            f"{self.told_again.total()} told twice ({both or '-'})"
        )

    def details(self) -> str:
        """What is wrong, line by line."""
        return "\n".join(
            [
                self.summary(),
                *(
                    f"missing: {one.key}, after {one.transition.previous}, by {one.transition.made_by}"
                    for one in self.unexplained
                ),
                *(f"phantom: {one.key} {one.data.get('started_at')}" for one in self.phantoms),
                *(f"differs: {text}" for text in self.differing),
                *(f"contradicts: {text}" for text in self.contradicting),
            ]
        )


def compare(
    transitions: Sequence[Transition],
    messages: Iterable[dict[str, Any]],
    kills: Sequence[datetime] = (),
    commands: Sequence[str] = (),
    failing_fast: Collection[str] = (),
    marked: Collection[tuple[str, str, str]] = (),
) -> Comparison:
    """Compare what the database has seen with what is on the topic.

    Args:
        transitions: of :class:`~tests.faults.deployments.sources.AirflowDatabase`.
        messages: values of the topic, in its order.
        kills: when processes of Airflow were killed.
        commands: names by which ``airflow dags test`` and the like were known to the database.
        failing_fast: DAGs with ``fail_fast``.
        marked: DAG, run and task of tasks that were marked by hand.
    """
    changes = _by_transaction(transitions)
    found = Comparison()
    found.runs = len({(one.dag_id, one.run_id) for one in changes})
    found.tasks = len(
        {(one.dag_id, one.run_id, one.task_id, one.map_index) for one in changes if one.task_id}
    )
    wanted = _expected(changes, found)
    found.expected = sum(map(len, wanted.values()))
    causes = _Causes(changes, kills, commands, failing_fast, marked)
    events = _deduplicated(messages, causes, found)
    for key in dict.fromkeys([*wanted, *events]):
        _match(wanted.get(key, []), events.get(key, []), causes, found)
    return found


def _by_transaction(transitions: Sequence[Transition]) -> list[Transition]:
    """One transition for each row and transaction: flushed several times, a row changes its state once."""
    merged: dict[tuple[object, ...], list[Transition]] = {}
    for one in transitions:
        entity = (one.transaction, one.dag_id, one.run_id, one.task_id, one.map_index)
        merged.setdefault(entity, []).append(one)
    return [
        Transition(
            **{
                name: getattr(rows[-1], name)
                for name in Transition.__dataclass_fields__
                if name != "previous"
            },
            previous=rows[0].previous,
        )
        for rows in merged.values()
        if rows[0].previous != rows[-1].state
    ]


def _expected(changes: Sequence[Transition], found: Comparison) -> dict[Key, list[Expected]]:
    wanted: dict[Key, list[Expected]] = defaultdict(list)
    for one in changes:
        of_task = one.task_id is not None
        event_type = (_TASK_TYPES if of_task else _RUN_TYPES).get(one.state or "")
        if event_type is None:
            if one.state in _WITHOUT_A_TYPE:
                found.without_a_type[str(one.state)] += 1
            continue
        key = Key(event_type, one.dag_id, one.run_id)
        if of_task:
            key = Key(event_type, one.dag_id, one.run_id, one.task_id, one.map_index, one.try_number)
            if wanted[key]:  # it went on after it was deferred or rescheduled: the same start
                continue
        wanted[key].append(Expected(key, one))
    return wanted


def _deduplicated(
    messages: Iterable[dict[str, Any]], causes: _Causes, found: Comparison
) -> dict[Key, list[Event]]:
    contents: dict[str, dict[str, Any]] = {}
    events: dict[Key, list[Event]] = defaultdict(list)
    for message in messages:
        event_id, data = message["event_id"], message["payload"]["data"]
        key = Key(message["event_type"], message["workflow_id"], message["workflow_run_id"])
        if task := data.get("task"):
            key = Key(*key[:3], task["task_id"], task["map_index"], task["try_number"])
        if event_id in contents:
            found.repeated += 1
            first = contents[event_id]
            other = sorted(name for name in first.keys() | data.keys() if first.get(name) != data.get(name))
            if other and (cause := causes.of_telling_again(key)):
                found.told_again[cause] += 1
            elif other and causes.may_be_rolled_back(key, other):
                found.untrue[ROLLED_BACK] += 1
                # The later one counts: it is this that is compared with what was stored.
                events[key] = [one for one in events[key] if one.event_id != event_id]
                events[key].append(Event(key, event_id, data))
                contents[event_id] = data
            elif other:
                found.contradicting.append(f"{message['event_type']} {event_id}: {', '.join(other)}")
            continue
        contents[event_id] = data
        events[key].append(Event(key, event_id, data))
    return events


def _match(wanted: list[Expected], events: list[Event], causes: _Causes, found: Comparison) -> None:
    """Pair what was expected with what came, the ones that agree first."""
    left = list(events)
    unmatched = []
    for one in wanted:
        same = next((event for event in left if not _differences(one, event)), None)
        if same is None:
            unmatched.append(one)
        else:
            left.remove(same)
            found.largest_skew = max(found.largest_skew, *_skews(one, same))
    for one in unmatched:
        if left:
            event = left.pop(0)
            found.differing.append(f"{event.key}: {_differences(one, event)}")
            continue
        cause = causes.of(one)
        if cause is None:
            found.unexplained.append(one)
        else:
            found.missing[cause] += 1
    for event in left:
        cause = causes.of_phantom(event)
        if cause is None:
            found.phantoms.append(event)
        else:
            found.untrue[cause] += 1


def _differences(expected: Expected, event: Event) -> dict[str, tuple[object, object]]:
    """Fields in which an event differs from the row, each with what the row and the event have."""
    row, data = expected.transition, event.data
    fields: dict[str, tuple[object, object]] = {"state": (row.state, data.get("state"))}
    if row.task_id is None:
        fields["started_at"] = (row.started_at, _time(data.get("started_at")))
        fields["clear_number"] = (row.clear_number, data.get("clear_number"))
        fields["run_type"] = (row.run_type, data.get("run_type"))
        if row.state in {"success", "failed"}:
            fields["ended_at"] = (row.ended_at, _time(data.get("ended_at")))
    elif max(_skews(expected, event)) > _SKEW:
        fields["started_at"] = (row.started_at, data.get("started_at"))
        fields["ended_at"] = (row.ended_at, data.get("ended_at"))
    return {name: pair for name, pair in fields.items() if pair[0] != pair[1]}


def _skews(expected: Expected, event: Event) -> list[timedelta]:
    """How far the times of a task are from the row's: its process knows its own clock alone."""
    if expected.transition.task_id is None:
        return [timedelta(0)]
    row = expected.transition
    pairs = [(row.started_at, _time(event.data.get("started_at")))]
    if row.state != "running":
        pairs.append((row.ended_at, _time(event.data.get("ended_at"))))
    return [timedelta(0), *(abs(there - here) for there, here in pairs if there and here)]


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class _Causes:
    """Why there is no event of a transition, as far as the database tells."""

    def __init__(
        self,
        changes: Sequence[Transition],
        kills: Sequence[datetime],
        commands: Sequence[str],
        failing_fast: Collection[str],
        marked: Collection[tuple[str, str, str]],
    ) -> None:
        self._kills = kills
        self._commands = commands
        self._runs = {(one.transaction, one.dag_id, one.run_id) for one in changes if one.task_id is None}
        self._failing_fast = failing_fast
        self._marked = marked
        self._next: dict[tuple[object, ...], list[Transition]] = defaultdict(list)
        for one in changes:
            self._next[one.dag_id, one.run_id, one.task_id, one.map_index].append(one)

    def of(self, expected: Expected) -> str | None:
        """The cause, or ``None`` where nothing explains it."""
        row = expected.transition
        if row.task_id is None:
            return self._of_run(row)
        by_scheduler = row.made_by.startswith("scheduler")
        if row.state == "skipped" and row.previous not in _IN_A_PROCESS:
            return SKIPPED
        if by_scheduler:
            return BY_SCHEDULER if row.previous not in _IN_A_PROCESS else TAKEN_AWAY
        if row.made_by == "triggerer":
            return BY_TRIGGERER
        if (row.transaction, row.dag_id, row.run_id) in self._runs:
            return WITH_THE_RUN
        if row.state == "running":
            return self._of_start(row)
        if self._is_killed_after(row):
            return KILLED_AFTER
        if self._failed_fast(row):
            return FAIL_FAST
        return None

    def _of_run(self, row: Transition) -> str | None:
        if row.state == "running" and row.made_by in self._commands:
            return NO_START_HOOK
        if row.made_by == "api-server" and row.previous in {"success", "failed"}:
            return MARKED_AGAIN
        return None

    def of_telling_again(self, key: Key) -> str | None:
        """Why an event of a task is told again under its id, with other fields, or ``None``."""
        if key.task_id is None:
            return None
        of_try = [
            row
            for row in self._next[key.dag_id, key.run_id, key.task_id, key.map_index]
            if row.try_number == key.try_number
        ]
        ended_by_scheduler = any(
            row.made_by.startswith("scheduler")
            and row.previous in {"running", "queued"}
            and _TASK_TYPES.get(row.state or "") == key.event_type
            for row in of_try
        )
        return TOLD_BY_BOTH if ended_by_scheduler else None

    def may_be_rolled_back(self, key: Key, differing: Collection[str]) -> bool:
        """Whether a run's event may be told again because a killed scheduler did not commit the first."""
        return key.task_id is None and bool(self._kills) and set(differing) <= _TIMES_OF_RUN

    def of_phantom(self, event: Event) -> str | None:
        """Why there is an event of what Airflow has not stored, or ``None`` where nothing explains it."""
        key = event.key
        if key.task_id is None:
            return ROLLED_BACK if key.event_type == "workflow.started" and self._kills else None
        of_task = self._next[key.dag_id, key.run_id, key.task_id, key.map_index]
        if (key.dag_id, key.run_id, key.task_id) in self._marked:
            return TOLD_TWICE
        return REFUSED if any(map(self._is_from_outside, of_task)) else None

    def _of_start(self, row: Transition) -> str | None:
        of_task = self._next[row.dag_id, row.run_id, row.task_id, row.map_index]
        later = of_task[of_task.index(row) + 1 :]
        if not later or later[0].try_number != row.try_number or later[0].made_by.startswith("scheduler"):
            return KILLED_BEFORE
        if self._is_from_outside(later[0]):
            return TAKEN_BEFORE
        failed = later[0].state in {"failed", "up_for_retry"}
        return NOT_BEGUN if failed and self._is_killed_after(row) else None

    def _failed_fast(self, row: Transition) -> bool:
        return row.state in {"failed", "skipped"} and row.dag_id in self._failing_fast

    def _is_killed_after(self, row: Transition) -> bool:
        return any(timedelta(0) <= kill - row.at <= _SOON for kill in self._kills)

    def _is_from_outside(self, row: Transition) -> bool:
        """Whether a task was taken from the executor or its process, rather than reported on by it."""
        if row.previous not in {"queued", "running"}:
            return False
        by_scheduler = row.made_by.startswith("scheduler")
        return (
            (row.state not in {"queued", "running", "deferred", "up_for_reschedule"} and by_scheduler)
            or row.state in {None, "restarting", "scheduled"}
            or (row.transaction, row.dag_id, row.run_id) in self._runs
            or self._failed_fast(row)
            or (row.dag_id, row.run_id, row.task_id) in self._marked
        )
