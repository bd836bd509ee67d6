"""Wait for an event of a service.

The sensor waits in the triggerer and takes no worker slot. An event that came first is found as well, as the
sensor looks back to the start of its own run. Should the service report failure, the task fails at once.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.sensors import WorkflowEventSensor

with DAG(
    "example_wait_for_a_services_event",
    schedule=None,
    catchup=False,
    tags=["workflow-events"],
    doc_md=__doc__,
):
    imported = WorkflowEventSensor(
        task_id="wait_for_import",
        workflow_id="order_import",
        workflow_run_id="{{ run_id }}",
        event_type="orders.imported",
        source="fastapi",
        data={"rows": {"$gte": 1}},
        fail_on="workflow.failed",
        timeout=600,
    )

    (
        PublishWorkflowEventOperator(
            task_id="publish_count",
            event_type="orders.counted",
            data={"rows": "{{ ti.xcom_pull(task_ids='wait_for_import')['payload']['data']['rows'] }}"},
        )
        << imported
    )
