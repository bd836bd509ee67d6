"""Publish an event from a task.

The task succeeds only after Kafka confirmed the event; a failed delivery fails the task, so that its retries
apply. Templates work at any depth of ``data``, and the task returns where the event went. The event's type is
the domain's own: that the run itself completed is for a callback or the listener to say.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_workflow_events.operators import PublishWorkflowEventOperator

with DAG(
    "example_publish_with_operator", schedule=None, catchup=False, tags=["workflow-events"], doc_md=__doc__
):
    published = PublishWorkflowEventOperator(
        task_id="publish",
        event_type="orders.loaded",
        data={
            "run": "{{ run_id }}",
            "files": [{"name": "orders_{{ dag_run.run_type.value }}.csv", "rows": 1280}],
        },
        retries=2,
    )

    ready = PublishWorkflowEventOperator(
        task_id="publish_ready",
        event_type="orders.ready",
        data={"previous_event": "{{ ti.xcom_pull(task_ids='publish')['event_id'] }}"},
    )

    @task
    def show(report: dict[str, object]) -> None:
        """Read where the event went from the operator's XCom."""
        print(f"event {report['event_id']} is at offset {report['offset']} of {report['topic']}")

    published >> ready >> show(ready.output)
