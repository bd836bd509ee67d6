"""Deterministic ids, so that one thing that happened has one ``event_id`` whoever reports it.

A listener, a callback, a replay and a second scheduler all see the same run; derived from what identifies the
happening, their events collapse into one for every consumer that dedupes by id.
"""

from __future__ import annotations

import datetime as dt
import json
from uuid import UUID, uuid5

#: uuid5(NAMESPACE_DNS, "airflow-workflow-events"). Changing it changes every id: never do.
LIFECYCLE_NAMESPACE = UUID("355d4068-905e-5043-ab2e-408ea3dc863f")


def lifecycle_event_id(
    *,
    event_type: str,
    workflow_id: str,
    workflow_run_id: str,
    source_instance: str | None = None,
    clear_number: int | None = None,
    run_started_at: dt.datetime | None = None,
    task_id: str | None = None,
    map_index: int | None = None,
    try_number: int | None = None,
    deadline_id: str | None = None,
) -> str:
    """Return the id of a lifecycle event: the same arguments give the same id, in every process, for ever.

    Args:
        event_type: what happened.
        workflow_id: the DAG id.
        workflow_run_id: the run id.
        source_instance: which deployment. Default ``None``.
        clear_number: how often the run was cleared; a cleared run happens again. Default ``None``.
        run_started_at: the run's start. Re-queueing a run through the API keeps ``clear_number`` and changes
            the start, which is why both are in. Naive is taken as UTC. Default ``None``.
        task_id: for an event of a task. Default ``None``.
        map_index: of a mapped task; -1 and ``None`` mean the same, not mapped. Default ``None``.
        try_number: of a task. Default ``None``.
        deadline_id: of a deadline alert, as one run may miss several. Default ``None``.

    Returns:
        A version 5 UUID (RFC 9562) over the JSON array of the arguments.
    """
    if run_started_at is not None:
        aware = run_started_at if run_started_at.tzinfo else run_started_at.replace(tzinfo=dt.UTC)
        started = aware.astimezone(dt.UTC).isoformat(timespec="microseconds")
    else:
        started = None
    name = json.dumps(
        [
            source_instance or None,
            workflow_id,
            workflow_run_id,
            clear_number,
            started,
            task_id,
            None if map_index == -1 else map_index,
            try_number,
            str(event_type),
            # Only where there is one, so that it left the ids of all other events as they were.
            *([] if deadline_id is None else [deadline_id]),
        ],
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return str(uuid5(LIFECYCLE_NAMESPACE, name))
