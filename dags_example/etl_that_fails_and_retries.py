"""Follow an ETL that fails: every step of it leaves an event.

``transform`` fails at its first try and succeeds at its second (``task.retrying``, then ``task.completed``);
``load`` fails for good (``task.failed``), and with it the run (``workflow.failed``, naming the failed task).
The password in the exception's message does not reach the events.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, get_current_context, task

from airflow_workflow_events.callbacks import publish_on_failure, publish_on_success

with DAG(
    "example_etl_that_fails_and_retries",
    schedule=None,
    catchup=False,
    tags=["workflow-events", "etl"],
    doc_md=__doc__,
    default_args={
        "owner": "data-platform",
        "on_success_callback": publish_on_success,
        "on_failure_callback": publish_on_failure,
        "on_retry_callback": publish_on_failure,
    },
    on_success_callback=publish_on_success,
    on_failure_callback=publish_on_failure,
):

    @task
    def extract() -> list[int]:
        """Read the source."""
        return [3, 1, 2]

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def transform(rows: list[int]) -> list[int]:
        """Fail once, as a flaky source would make it."""
        if get_current_context()["ti"].try_number == 1:
            raise ConnectionError("the rates service did not answer")
        return sorted(rows)

    @task
    def load(rows: list[int]) -> None:
        """Fail for good."""
        raise RuntimeError(f"cannot write {len(rows)} rows to postgresql://etl:s3cr3t-canary@warehouse/sales")

    load(transform(extract()))
