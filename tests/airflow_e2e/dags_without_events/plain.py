"""DAGs that know nothing of events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, setup, task, teardown

with DAG("plain_etl", schedule=None, tags=["plain"]):

    @task
    def extract() -> None: ...

    @task
    def optional() -> None:
        raise AirflowSkipException

    @task(retries=1, retry_delay=timedelta(0))
    def transform() -> None:
        raise ValueError("the source is away")

    extract() >> [optional(), transform()]

with DAG("plain_that_opted_out", schedule=None, tags=["workflow-events:off"]):

    @task
    def work() -> None: ...

    work()

with DAG("plain_that_waits", schedule=None):

    @task.sensor(poke_interval=1, timeout=120, mode="poke")
    def wait() -> bool:
        return False

    wait()

# Marked by hand while they wait; the mapped ones are two.
_MARKED: dict[str, dict[str, Any]] = {
    "plain_off_by_tag": {"tags": ["workflow-events:off"]},
    "plain_off_by_parameter": {"params": {"workflow_events": {"enabled": False}}},
    "plain_with_topic_by_tag": {"tags": ["workflow-events:topic=chosen"]},
    "plain_with_topic_by_parameter": {"params": {"workflow_events": {"topic": "chosen"}}},
}
for dag_id, options in _MARKED.items():
    with DAG(dag_id, schedule=None, **options):

        @setup
        def prepare() -> None: ...

        @task.sensor(poke_interval=1, timeout=120, mode="reschedule")
        def wait_for(number: int) -> bool:
            return number < 0

        @teardown
        def clean() -> None: ...

        prepare() >> wait_for.expand(number=[1, 2]) >> clean()

with DAG("plain_empty", schedule=None):
    pass

with DAG("plain_with_secrets", schedule=None, params={"password": "set by the run"}):

    @task
    def log_in(params: dict[str, str] | None = None) -> None:
        password = (params or {})["password"]
        raise ConnectionError(f"refused: postgresql://etl:{password}@warehouse/sales (password={password})")

    log_in()
