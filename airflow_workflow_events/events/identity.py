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
    run_queued_at: dt.datetime | None = None,
    task_id: str | None = None,
    map_index: int | None = None,
    try_number: int | None = None,
    deadline_id: str | None = None,
    region_id: str | None = None,
    marked_at: dt.datetime | None = None,
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
        run_queued_at: of ``workflow.started``, in place of the run's start: a scheduler that is killed while
            it starts a run starts it again, with another start. Default ``None``.
        task_id: for an event of a task. Default ``None``.
        map_index: of a mapped task; -1 and ``None`` mean the same, not mapped. Default ``None``.
        try_number: of a task. Default ``None``.
        deadline_id: of a deadline alert, as one run may miss several. Default ``None``.
        region_id: of a task in a loop, where Airflow names one. Default ``None``.
        marked_at: when somebody marked a run or a task by hand: a run may be marked as failed and as
            successful again and again, and its end does not change by it. Default ``None``.

    Returns:
        A version 5 UUID (RFC 9562) over the JSON array of the arguments.
    """
    # Only what there is, so that each left the ids of all other events as they were.
    more = {
        "run_queued_at": _text_of(run_queued_at),
        "region_id": region_id,
        "marked_at": _text_of(marked_at),
    }
    more = {name: value for name, value in more.items() if value is not None}
    name = json.dumps(
        [
            source_instance or None,
            workflow_id,
            workflow_run_id,
            clear_number,
            _text_of(run_started_at),
            task_id,
            None if map_index == -1 else map_index,
            try_number,
            str(event_type),
            *([] if deadline_id is None else [deadline_id]),
            *([more] if more else []),
        ],
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return str(uuid5(LIFECYCLE_NAMESPACE, name))


def _text_of(moment: dt.datetime | None) -> str | None:
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return aware.astimezone(dt.UTC).isoformat(timespec="microseconds")
