"""Rows of Airflow's database, as its scheduler and its API server hand them to listeners -> contexts.

Only what is loaded is read: touching the rest would query through the session in use, which on the
scheduler's thread breaks the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import inspect

from airflow_workflow_events.lifecycle.reading import enum_value, get, now, time_of

#: In the context of what somebody marked by hand: when.
MARKED_AT = "workflow_events_marked_at"

_MANUALLY = "was manually set"
# airflow.cli.commands.task_command: the run that `airflow tasks test` makes and removes.
_TEMPORARY = "__airflow_temporary_run_"


def is_row(task_instance: object) -> bool:
    """Whether a task instance is a database row, rather than a task process's own."""
    return hasattr(task_instance, "_sa_instance_state")


def is_temporary(run_id: object) -> bool:
    """Whether a run exists for one ``airflow tasks test`` alone."""
    return str(run_id).startswith(_TEMPORARY)


def loaded(row: object) -> dict[str, Any]:
    """Copy what of a row is in memory, under the names of its attributes.

    Raises:
        LookupError: the row does not say whose it is.
    """
    values = {name.lstrip("_"): value for name, value in vars(row).items() if name != "_sa_instance_state"}
    # A synonym has no value of its own: from Airflow 3.4 on, map_index is one of region_index.
    for synonym in inspect(type(row)).synonyms:
        if synonym.name in vars(row):
            values[synonym.key] = vars(row)[synonym.name]
    if "dag_id" not in values or "run_id" not in values:
        raise LookupError("the run's id is not loaded")
    return values


def run_context(run: Mapping[str, Any], dag: object, msg: str) -> dict[str, Any]:
    """Return the context of a run's row; ``msg`` is what Airflow says of its reason."""
    if _MANUALLY not in msg:
        return {"dag_run": run, "dag": dag, "reason": msg}
    return {"dag_run": run, "dag": dag, "reason": "marked_manually", MARKED_AT: _marked_at(run)}


def unsaid_reason(in_job: bool) -> str:
    """Return the reason where Airflow tells a run's end without a word.

    Its API server does below 3.3, of a run that was marked by hand; its scheduler does below 3.2, of one that
    was longer at work than its ``dagrun_timeout``.
    """
    return "timed_out" if in_job else _MANUALLY


def task_context(ti: Mapping[str, Any], run: Mapping[str, Any], dag: object, error: object) -> dict[str, Any]:
    """Return the context of a task instance's row."""
    task = ti.get("task") or _task_of(dag, ti.get("task_id"))
    context = {"ti": ti, "dag_run": run, "dag": dag, "task": task, "exception": error}
    # The scheduler reports failures alone, each with its own words; all else is the API server's marking.
    if enum_value(ti.get("state")) in {"success", "skipped"} or _MANUALLY in str(error):
        context[MARKED_AT] = _marked_at(ti)
    return context


def _marked_at(values: Mapping[str, Any]) -> object:
    # Marking what has ended changes no end: success, failed and success again would be two events, not three.
    return time_of(values.get("updated_at")) or now()


def _task_of(dag: object, task_id: object) -> object:
    try:
        return get(dag, "get_task")(task_id)
    except Exception:  # noqa: BLE001 - Airflow's own error for a task that the DAG no longer has, or no DAG
        return None
