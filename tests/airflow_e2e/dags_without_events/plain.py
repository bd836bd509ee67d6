"""DAGs that know nothing of events."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

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

with DAG("plain_empty", schedule=None):
    pass

with DAG("plain_with_secrets", schedule=None, params={"password": "set by the run"}):

    @task
    def log_in(params: dict[str, str] | None = None) -> None:
        password = (params or {})["password"]
        raise ConnectionError(f"refused: postgresql://etl:{password}@warehouse/sales (password={password})")

    log_in()
