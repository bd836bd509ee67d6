"""Publish what a function returns, once for each of many inputs.

``@task.workflow_event`` makes the returned mapping, pydantic model or dataclass the event's ``payload.data``.
Mapped over regions, every task instance publishes an event of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task
from pydantic import BaseModel


class RegionReport(BaseModel):
    """What a region's load amounts to."""

    region: str
    rows: int
    finished_at: datetime


with DAG(
    "example_publish_what_a_function_returns",
    schedule=None,
    catchup=False,
    tags=["workflow-events"],
    doc_md=__doc__,
):

    @task
    def regions() -> list[str]:
        """List what to load."""
        return ["eu", "us", "apac"]

    @task.workflow_event(event_type="region.loaded", environment="demo")
    def load(region: str) -> RegionReport:
        """Load a region and report on it."""
        return RegionReport(region=region, rows=100 * len(region), finished_at=datetime.now(UTC))

    load.expand(region=regions())
