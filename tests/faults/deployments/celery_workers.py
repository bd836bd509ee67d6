"""Airflow with Celery workers, each on a host of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.airflow_versions import PROVIDERS_HAVE_COMMANDS
from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.deployments.production import SOON_NOTICED, START_SECONDS, Production, running_redis
from tests.faults.deployments.watched import Watched, watched_deployment

_DAGS = Path(__file__).parent / "dags"
WORKERS = ("worker-1", "worker-2")


@contextmanager
def celery_workers(
    tmp_path: Path,
    packages: Path,
    postgresql: PostgreSQL,
    kafka: KafkaCluster,
    outbox_url: str | None,
    **worker_options: str,
) -> Iterator[Watched]:
    """A scheduler on one host, and a worker on each of two others; options are those of ``[celery]``."""

    def start_workers(airflow: Production) -> None:
        for worker in WORKERS:
            airflow.start_worker(worker, host=worker, **worker_options)
            if outbox_url is None and not PROVIDERS_HAVE_COMMANDS:
                relay = ["airflow_workflow_events", "relay"]
                airflow.start_part(f"relay-{worker}", *relay, **airflow.on_host(worker))

    with (
        running_redis(tmp_path) as redis,
        watched_deployment(
            tmp_path,
            packages,
            postgresql,
            kafka,
            dags=_DAGS,
            executor="CeleryExecutor",
            config={
                "celery.broker_url": f"{redis}/0",
                "celery.result_backend": f"{redis}/1",
                **SOON_NOTICED,
            },
            on_database=start_workers,
            outbox_url=outbox_url,
        ) as watched,
    ):
        watched.airflow.start(START_SECONDS)
        watched.airflow.await_dags({"plain", "long", "retrying", "skipping"}, START_SECONDS)
        yield watched
