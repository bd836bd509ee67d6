"""Airflow with Celery workers, each on a host of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.deployments.production import (
    SOON_NOTICED,
    START_SECONDS,
    Production,
    Watched,
    production_options,
    running_redis,
)
from tests.faults.deployments.sources import AirflowDatabase

_DAGS = Path(__file__).parent / "dags"
WORKERS = ("worker-1", "worker-2")
#: Airflow 3.1 asks no provider for its commands before it starts a worker: relays are started here instead.
WORKERS_HAVE_RELAYS = version("apache-airflow-core").split(".")[:2] != ["3", "1"]


@contextmanager
def celery_workers(
    home: Path,
    packages: Path,
    postgresql: PostgreSQL,
    kafka: KafkaCluster,
    outbox_url: str | None,
    **worker_options: str,
) -> Iterator[Watched]:
    """A scheduler on one host, and a worker on each of two others; options are those of ``[celery]``."""
    database_url = postgresql.new_database()
    home.mkdir()
    with running_redis(home) as redis:
        config = {
            "celery.broker_url": f"{redis}/0",
            "celery.result_backend": f"{redis}/1",
            **SOON_NOTICED,
        }
        if outbox_url is not None:
            config["workflow_events.outbox_url"] = outbox_url
        options = production_options(
            database_url, kafka.bootstrap_servers, executor="CeleryExecutor", config=config
        )
        database = AirflowDatabase(database_url)

        def on_database(airflow: Production) -> None:
            database.watch()
            for worker in WORKERS:
                airflow.start_worker(worker, host=worker, **worker_options)
                if outbox_url is None and not WORKERS_HAVE_RELAYS:
                    relay = ["airflow_workflow_events", "relay"]
                    airflow.start_part(f"relay-{worker}", *relay, **airflow.on_host(worker))

        with Production(home, _DAGS, packages=packages, on_database=on_database, **options) as airflow:
            airflow.start(START_SECONDS)
            airflow.await_dags({"plain", "long", "retrying", "skipping"}, START_SECONDS)
            yield Watched(airflow, database, kafka.bootstrap_servers, outbox_url)
