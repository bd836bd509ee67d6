"""DAGs in which Airflow gives callbacks little to go by, or Kafka is away."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from airflow_workflow_events.callbacks import (
    publish_on_failure,
    publish_on_success,
    workflow_event_callback,
)
from airflow_workflow_events.notifications import WorkflowEventNotifier
from airflow_workflow_events.operators import PublishWorkflowEventOperator

with DAG("edge_without_tasks", schedule=None, on_success_callback=publish_on_success):
    pass

with DAG(
    "edge_all_skipped",
    schedule=None,
    on_success_callback=[publish_on_success, WorkflowEventNotifier(event_type="x.{{ dag_run.run_id }}")],
):

    @task(on_skipped_callback=workflow_event_callback())
    def skip() -> None:
        raise AirflowSkipException("nothing to do")

    skip()

with DAG(
    "edge_timed_out",
    schedule=None,
    dagrun_timeout=timedelta(seconds=2),
    on_failure_callback=publish_on_failure,
):
    BashOperator(task_id="too_long", bash_command="sleep 60")

# Nothing listens on port 1 of loopback.
with DAG(
    "edge_kafka_is_away",
    schedule=None,
    on_success_callback=workflow_event_callback(conn_id="dead_broker", timeout_seconds=2),
):

    @task(on_success_callback=workflow_event_callback(conn_id="dead_broker", timeout_seconds=2))
    def work() -> None:
        pass

    work()

with DAG("edge_operator_without_kafka", schedule=None):
    PublishWorkflowEventOperator(
        task_id="publish", event_type="orders.loaded", workflow_events_conn_id="dead_broker"
    )

with DAG("edge_connection_of_the_form", schedule=None):
    PublishWorkflowEventOperator(
        task_id="publish",
        event_type="orders.loaded",
        data={"by": "a connection made in the browser"},
        workflow_events_conn_id="events_from_form",
    )
