"""Start a DAG when a DAG of another Airflow has completed.

The watcher's trigger waits on Kafka, and each event that it waits for becomes an event of the asset, which
starts this DAG. The two Airflows share nothing but the topic. The run can read the event that started it.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.triggers import WorkflowEventTrigger, triggering_workflow_events

sales = Asset(
    "sales_refreshed",
    watchers=[
        AssetWatcher(
            name="sales_completed",
            trigger=WorkflowEventTrigger(workflow_id="example_publish_with_callbacks"),
        )
    ],
)

with DAG(
    "example_start_when_another_completes",
    schedule=[sales],
    catchup=False,
    tags=["workflow-events"],
    doc_md=__doc__,
):

    @task
    def read_what_started_it(**context: object) -> list[dict[str, str]]:
        """Return which runs completed; several may, before this DAG gets to start."""
        return [
            {"workflow_id": event.workflow_id, "workflow_run_id": event.workflow_run_id}
            for event in triggering_workflow_events(context)
        ]

    PublishWorkflowEventOperator(
        task_id="publish_report",
        event_type="report.written",
        data={"started_by": read_what_started_it()},
    )
