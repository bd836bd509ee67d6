"""Publish what becomes of a DAG run and of its tasks, from callbacks.

The callbacks build the event from the context Airflow gives them. They never fail a DAG and never take longer
than ``[workflow_events] callback_timeout_seconds``.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_workflow_events.callbacks import (
    publish_on_failure,
    publish_on_success,
    workflow_event_callback,
)

with DAG(
    "example_publish_with_callbacks",
    schedule=None,
    catchup=False,
    tags=["workflow-events"],
    doc_md=__doc__,
    on_success_callback=[
        publish_on_success,
        workflow_event_callback("sales.refreshed", data={"table": "sales"}),
    ],
    on_failure_callback=publish_on_failure,
):

    @task(
        on_execute_callback=workflow_event_callback(),
        on_success_callback=publish_on_success,
        on_failure_callback=publish_on_failure,
    )
    def refresh() -> int:
        """Stand for the work."""
        return 42

    refresh()
