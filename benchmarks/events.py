"""The events every contender sends: the end of a run, as a scheduler would report it."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID, uuid5

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.events import encode

TOPIC = "benchmark-events"
PARTITIONS = 4

_NAMESPACE = UUID("0a4f0c02-5c68-4a4c-8a24-0a9f2f7f5f10")
_ENDED = dt.datetime(2026, 11, 23, 2, 44, 35, 216843, tzinfo=dt.UTC)
_RUNS = 200  # distinct keys


def arguments(number: int) -> dict[str, Any]:
    """Return what an application hands to ``WorkflowEvent``."""
    ended = _ENDED + dt.timedelta(milliseconds=number)
    return {
        "event_id": str(uuid5(_NAMESPACE, str(number))),
        "event_type": "workflow.completed",
        "source": "airflow",
        "workflow_id": "daily_sales_report",
        "workflow_run_id": f"scheduled__2026-11-22T00:{number % _RUNS:03d}",
        "timestamp": ended,
        "payload": {
            "data": {
                "state": "success",
                "run_type": "scheduled",
                "logical_date": "2026-11-22T00:00:00Z",
                "start_date": "2026-11-23T02:40:01.114002Z",
                "end_date": ended,
                "duration_seconds": 274.102841,
                "rows_loaded": 1_204_331,
                "tasks": {"success": 11, "skipped": 2, "failed": 0},
            }
        },
        "metadata": {
            "environment": "prod",
            "source_instance": "airflow-eu",
            "tags": ["sales", "daily"],
            "owner": "analytics",
            "emitted_by": "listener",
        },
    }


def events(count: int) -> list[WorkflowEvent]:
    """Return events that differ in id, time and, in turn, run."""
    return [WorkflowEvent.model_validate(arguments(number)) for number in range(count)]


def records(count: int) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Return key, value and headers of the same events, as they are written to Kafka."""
    return [(record.key, record.value, record.headers) for record in map(encode, events(count))]


def documents(count: int) -> list[tuple[bytes, dict[str, Any], list[tuple[str, bytes]]]]:
    """Return the same with the value as the plain dict that ``json.dumps`` turns into the same JSON."""
    return [
        (record.key, event.model_dump(mode="json", exclude_none=True), record.headers)
        for event in events(count)
        for record in [encode(event)]
    ]


def lineage_events(count: int) -> list[Any]:
    """Return OpenLineage events that say about the same, in its own facets."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import job_type_job, nominal_time_run, ownership_job, tags_run

    made = []
    for number in range(count):
        given = arguments(number)
        tags = [tags_run.TagsRunFacetFields(tag, "true", "USER") for tag in given["metadata"]["tags"]]
        owner = ownership_job.Owner(given["metadata"]["owner"])
        times = nominal_time_run.NominalTimeRunFacet("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z")
        run = Run(given["event_id"], {"nominalTime": times, "tags": tags_run.TagsRunFacet(tags)})
        job = Job(
            "airflow-eu",
            given["workflow_id"],
            {
                "jobType": job_type_job.JobTypeJobFacet("BATCH", "AIRFLOW", "DAG"),
                "ownership": ownership_job.OwnershipJobFacet([owner]),
            },
        )
        time = given["timestamp"].isoformat()
        made.append(
            RunEvent(eventTime=time, producer="urn:benchmark", run=run, job=job, eventType=RunState.COMPLETE)
        )
    return made
