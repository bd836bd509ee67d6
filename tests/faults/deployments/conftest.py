"""A broker that can be restarted, and the packages of the deployments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.jvm import KafkaCluster
from tests.conftest import running_cluster
from tests.faults.conftest import SCALE_VARIABLE
from tests.faults.deployments.layer import layer
from tests.faults.deployments.production import TOPIC

# A deployment takes minutes: `make faults` runs them all, and every run of the tests the smallest.
collect_ignore = (
    []
    if os.environ.get(SCALE_VARIABLE) == "full"
    else ["test_bundles.py", "test_celery.py", "test_celery_chaos.py", "test_schedulers.py"]
)


@pytest.fixture(scope="session")
def packages(pytestconfig: pytest.Config) -> Path:
    """What is to be on the ``PYTHONPATH`` of a deployment's processes."""
    return layer(pytestconfig.rootpath / ".work" / "deployments")


@pytest.fixture
def kafka(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[KafkaCluster]:
    """A broker of the test's own, with the topic."""
    with running_cluster(pytestconfig, tmp_path / "kafka") as cluster:
        cluster.create_topic(TOPIC, partitions=4)
        yield cluster
