"""The DAG of what is marked by hand: the API server gives listeners rows that have none.

A DAG's tags and parameters keep its events from leaving or name their topic, so it has to be looked up: in
the API server, where Airflow itself does the same in the same session a moment earlier. Never in a
scheduler's process, whose session does not survive a query of somebody else's.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import object_session

# Marking a mapped task calls the listener once an instance, and reading a large DAG takes a while.
_KEPT_SECONDS = 5.0
_KEPT_DAGS = 32

_kept: dict[tuple[str, str], tuple[float, object | None]] = {}


def dag_of_row(row: object, dag_id: str, version_id: object) -> object | None:
    """Return the serialised DAG of a run's or task instance's row, through the row's own session.

    Args:
        row: the row.
        dag_id: its DAG.
        version_id: the version of the DAG that it ran; ``None`` for the latest.

    Returns:
        The DAG; ``None`` for a row outside a session, or a DAG that Airflow no longer has.
    """
    session: Any = object_session(row)
    if session is None:
        return None
    key = (dag_id, str(version_id))
    kept = _kept.get(key)
    if kept is not None and monotonic() < kept[0]:
        return kept[1]
    from airflow.models.serialized_dag import SerializedDagModel

    found: Any = None
    with session.no_autoflush:
        if version_id is not None:
            found = session.scalar(
                select(SerializedDagModel).where(SerializedDagModel.dag_version_id == version_id)
            )
        found = found or SerializedDagModel.get(dag_id, session=session)
        dag: object | None = None if found is None else found.dag
    if len(_kept) >= _KEPT_DAGS:
        _kept.clear()
    _kept[key] = (monotonic() + _KEPT_SECONDS, dag)
    return dag


def run_of_task(row: Any) -> object | None:
    """Return the run's row of a task instance's row, through its own session; ``None`` outside one."""
    session = object_session(row)
    if session is None:
        return None
    with session.no_autoflush:
        run: object | None = row.dag_run
    return run


def forget() -> None:
    """Forget the DAGs that were read."""
    _kept.clear()
