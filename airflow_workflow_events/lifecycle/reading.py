"""Reading Airflow's objects defensively: whatever cannot be read is unknown, and unknown is ``None``."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

_T = TypeVar("_T")

# What a whole number is at most, in a database and for whoever reads an event.
_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What tells one run of a workflow from every other.

    Attributes:
        workflow_id: the DAG id.
        workflow_run_id: the run id.
        clear_number: how often the run was cleared; ``None`` where Airflow does not say.
        started_at: when it started; ``None`` where Airflow does not say.
        queued_at: when it was queued; ``None`` where Airflow does not say, which it does only in rows and
            deadline alerts.
    """

    workflow_id: str
    workflow_run_id: str
    clear_number: int | None
    started_at: dt.datetime | None
    queued_at: dt.datetime | None = None


def run_identity(context: Mapping[str, Any]) -> RunIdentity:
    """Return the run a context is about.

    Raises:
        KeyError: the context names no DAG or no run; Airflow never gives such a one.
    """
    run, dag, ti = context.get("dag_run"), context.get("dag"), context.get("ti")
    workflow_id = _first_text(get(run, "dag_id"), get(dag, "dag_id"), get(ti, "dag_id"))
    run_id = _first_text(get(run, "run_id"), get(run, "dag_run_id"), context.get("run_id"), get(ti, "run_id"))
    if workflow_id is None or run_id is None:
        raise KeyError(f"the context has no DAG id or run id, only: {', '.join(sorted(map(str, context)))}")
    return RunIdentity(
        workflow_id,
        run_id,
        number_of(get(run, "clear_number")),
        time_of(get(run, "start_date")),
        time_of(get(run, "queued_at")),
    )


def is_about_a_task(context: Mapping[str, Any]) -> bool:
    """Whether a callback's context is a task's: Airflow gives a ``reason`` to DAG callbacks alone."""
    return (
        "reason" not in context
        and "deadline" not in context
        and get(context.get("ti"), "task_id") is not None
    )


def get(source: object, name: str) -> Any:
    """Return an attribute or an item of that name, or ``None``.

    A task instance of a DAG callback raises on ``start_date``, and other objects may on anything: what cannot
    be read is unknown.
    """
    if source is None:
        return None
    try:
        if type(source) is dict or isinstance(source, Mapping):  # the check of an abstract class takes long
            return source.get(name)
        return getattr(source, name, None)
    except BaseException as error:  # noqa: BLE001 - see above
        raise_interruption(error)
        return None


def told(tell: Callable[[], _T]) -> _T | None:
    """Return what an object of a task's own making tells, or ``None`` where it raises.

    Args:
        tell: asks the object.
    """
    try:
        return tell()
    except BaseException as error:  # noqa: BLE001 - the object's code may raise anything
        raise_interruption(error)
        return None


def raise_interruption(error: BaseException) -> None:
    """Raise what may come of a signal: a KeyboardInterrupt, say, in the main thread, where signals arrive."""
    if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
        raise error


def enum_value(state: object) -> str | None:
    """Return an enum's value: ``str()`` of Airflow's enums differs between its core and its task SDK."""
    if state is None:
        return None
    return text_or_none(state.value if isinstance(state, Enum) else state)


def text_or_none(value: object) -> str | None:
    """Return a value as text that is Unicode; the empty string, and what has no words, is ``None``."""
    if value is None or (text := told(lambda: str(value))) is None:
        return None
    # A file's name that is not UTF-8 reaches exceptions with surrogates, which JSON cannot carry.
    return text.encode(errors="backslashreplace").decode() or None


def number_of(value: object) -> int | None:
    """Return a whole number of at most 64 bits; ``None`` for anything else."""
    return int(value) if isinstance(value, int) and abs(value) <= _MAX_NUMBER else None


def _first_text(*values: object) -> str | None:
    return next((text for text in map(text_or_none, values) if text is not None), None)


def time_of(value: object) -> dt.datetime | None:
    """Return a time in UTC, from a datetime or an ISO 8601 string."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, dt.datetime):
        return None
    aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    # Not at the ends of the calendar, and a time zone may be anybody's code.
    return told(lambda: aware.astimezone(dt.UTC))


def seconds_between(start: dt.datetime | None, end: dt.datetime | None) -> float | None:
    """Return how many seconds lie between two times, where both are known."""
    return None if start is None or end is None else (end - start).total_seconds()


def now() -> dt.datetime:
    """Return the time in UTC."""
    return dt.datetime.now(dt.UTC)
