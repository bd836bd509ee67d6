"""Fan-in: go on when three workflows have completed, in whatever order.

One sensor is mapped over the workflows. However many wait, one consumer in the triggerer reads for all.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.sensors import WorkflowEventSensor

with DAG(
    "example_wait_for_three_workflows", schedule=None, catchup=False, tags=["workflow-events"], doc_md=__doc__
):
    completed = WorkflowEventSensor.partial(
        task_id="wait_for_workflow",
        workflow_run_id="{{ run_id }}",
        # One of the three says in a type of its own that it is done.
        event_type=["workflow.completed", "orders.ready"],
        fail_on="workflow.failed",
        timeout=600,
    ).expand(
        workflow_id=[
            "example_publish_with_callbacks",
            "example_publish_with_operator",
            "example_notify_of_missed_deadline",
        ]
    )

    completed >> PublishWorkflowEventOperator(
        task_id="publish_all_completed", event_type="regions.all_completed"
    )
