"""Airflow whose DAGs come from bundles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.deployments.watched import Watched, watched_deployment

_DAGS = Path(__file__).parent / "dags"


def local_bundle(path: Path, **options: object) -> dict[str, object]:
    """A bundle of DAG files in a folder."""
    return {
        "name": "local",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(path), **options},
    }


@contextmanager
def bundled_deployment(
    tmp_path: Path,
    packages: Path,
    postgresql: PostgreSQL,
    kafka: KafkaCluster,
    bundles: list[dict[str, object]],
) -> Iterator[Watched]:
    """A deployment whose DAGs come from these bundles, not started yet."""
    config = {
        "dag_processor.dag_bundle_config_list": json.dumps(bundles),
        "dag_processor.bundle_refresh_check_interval": "2",
        "dag_processor.dag_bundle_storage_path": str(tmp_path / "airflow" / "bundles"),
    }
    with watched_deployment(
        tmp_path, packages, postgresql, kafka, dags=_DAGS, executor="LocalExecutor", config=config
    ) as watched:
        yield watched
