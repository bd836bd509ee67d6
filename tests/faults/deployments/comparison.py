"""Compares the events on a topic with the transitions that Airflow's database has seen, row by row.

It shares no code with the product: what an event is called, and what is in it, stands here a second time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.faults.deployments.causes import ROLLED_BACK, Causes
from tests.faults.deployments.entities import (
    RUN_TYPES,
    TASK_TYPES,
    WITHOUT_A_TYPE,
    Event,
    Expected,
    Key,
    event_of,
    parsed,
)
from tests.faults.deployments.sources import Kill, Transition

# A task has its process's times, the row those of the API server, which may be busy or away for a while.
_SKEW = timedelta(minutes=5)


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

    @property
    def wrong(self) -> list[object]:
        """What nothing explains, of any kind."""
        return [*self.unexplained, *self.phantoms, *self.differing, *self.contradicting]

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
    kills: Sequence[Kill] = (),
    commands: Sequence[str] = (),
    failing_fast: Collection[str] = (),
    marked: Collection[tuple[str, str, str]] = (),
) -> Comparison:
    """Compare what the database has seen with what is on the topic.

    Args:
        transitions: of :class:`~tests.faults.deployments.sources.AirflowDatabase`.
        messages: values of the topic, in its order.
        kills: the processes of Airflow that were killed, and when.
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
    causes = Causes(changes, kills, commands, failing_fast, marked)
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
        event_type = (TASK_TYPES if of_task else RUN_TYPES).get(one.state or "")
        if event_type is None:
            if one.state in WITHOUT_A_TYPE:
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
    messages: Iterable[dict[str, Any]], causes: Causes, found: Comparison
) -> dict[Key, list[Event]]:
    first: dict[str, Event] = {}
    events: dict[Key, list[Event]] = defaultdict(list)
    for event in map(event_of, messages):
        known = first.setdefault(event.event_id, event)
        if known is event:
            events[event.key].append(event)
            continue
        found.repeated += 1
        names = known.data.keys() | event.data.keys()
        other = sorted(name for name in names if known.data.get(name) != event.data.get(name))
        if other and (cause := causes.of_telling_again(event.key)):
            found.told_again[cause] += 1
        elif other and causes.is_rolled_back(known, event, other):
            found.untrue[ROLLED_BACK] += 1
            # The later one counts: it is this that is compared with what was stored.
            events[event.key].remove(known)
            events[event.key].append(event)
            first[event.event_id] = event
        elif other:
            found.contradicting.append(f"{event.key.event_type} {event.event_id}: {', '.join(other)}")
    return events


def _match(wanted: list[Expected], events: list[Event], causes: Causes, found: Comparison) -> None:
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
        fields["started_at"] = (row.started_at, parsed(data.get("started_at")))
        fields["clear_number"] = (row.clear_number, data.get("clear_number"))
        fields["run_type"] = (row.run_type, data.get("run_type"))
        if row.state in {"success", "failed"}:
            fields["ended_at"] = (row.ended_at, parsed(data.get("ended_at")))
    elif max(_skews(expected, event)) > _SKEW:
        fields["started_at"] = (row.started_at, data.get("started_at"))
        fields["ended_at"] = (row.ended_at, data.get("ended_at"))
    return {name: pair for name, pair in fields.items() if pair[0] != pair[1]}


def _skews(expected: Expected, event: Event) -> list[timedelta]:
    """How far the times of a task are from the row's: its process knows its own clock alone."""
    if expected.transition.task_id is None:
        return [timedelta(0)]
    row = expected.transition
    pairs = [(row.started_at, parsed(event.data.get("started_at")))]
    if row.state != "running":
        pairs.append((row.ended_at, parsed(event.data.get("ended_at"))))
    return [timedelta(0), *(abs(there - here) for there, here in pairs if there and here)]
