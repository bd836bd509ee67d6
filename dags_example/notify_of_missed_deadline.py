"""Publish an event when a run takes too long.

The same notifier serves callbacks (synchronously, in the DAG processor) and deadline alerts (asynchronously,
in the triggerer). Here a run that is not done a second after it was queued publishes
``workflow.deadline_missed``, and ``workflow.completed`` once it is.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from airflow_workflow_events.notifications import WorkflowEventNotifier

try:
    from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference
except ImportError:  # Airflow 3.1
    from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference

with DAG(
    "example_notify_of_missed_deadline",
    schedule=None,
    catchup=False,
    tags=["workflow-events"],
    doc_md=__doc__,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=AsyncCallback(WorkflowEventNotifier, kwargs={"data": {"escalate_to": "data-platform"}}),
    ),
    on_success_callback=WorkflowEventNotifier(data={"note": "run {{ dag_run.run_id }} is done"}),
):
    BashOperator(task_id="take_too_long", bash_command="sleep 8")
