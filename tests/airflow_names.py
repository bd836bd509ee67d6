"""Names that tests take from Airflow, wherever the installed version has them."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from tests.airflow_versions import AIRFLOW, PROVIDERS_HAVE_COMMANDS

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.configuration import clear_secrets_backends_cache
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.exceptions import AirflowRescheduleException
    from airflow.serialization.serialized_objects import DagSerialization
else:
    try:
        from airflow.dag_processing.dagbag import DagBag
        from airflow.sdk.definitions.callback import AsyncCallback
        from airflow.sdk.exceptions import AirflowRescheduleException
        from airflow.serialization.serialized_objects import DagSerialization
    except ImportError:  # before Airflow 3.2
        from airflow.exceptions import AirflowRescheduleException
        from airflow.models.dagbag import DagBag
        from airflow.sdk.definitions.deadline import AsyncCallback
        from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
    try:
        from airflow.sdk.configuration import clear_secrets_backends_cache
    except ImportError:  # before Airflow 3.3, which reads backends anew when they are not the default ones

        def clear_secrets_backends_cache() -> None:
            pass


#: The command of this package.
COMMAND = [
    sys.executable,
    "-m",
    *(["airflow", "workflow-events"] if PROVIDERS_HAVE_COMMANDS else ["airflow_workflow_events"]),
]


def since_airflow(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """Leave a test out on an Airflow below this one; ``what`` says what that lacks."""
    return pytest.mark.skipif((major, minor) > AIRFLOW, reason=f"before Airflow {major}.{minor} {what}")


def since_kafka_provider(oldest: str, what: str) -> pytest.MarkDecorator:
    """Leave a test out with a Kafka provider below this one; ``what`` says what that lacks."""
    installed = Version(version("apache-airflow-providers-apache-kafka"))
    return pytest.mark.skipif(
        installed < Version(oldest), reason=f"before {oldest} the Kafka provider {what}"
    )


__all__ = [
    "AIRFLOW",
    "COMMAND",
    "AirflowRescheduleException",
    "AsyncCallback",
    "DagBag",
    "DagSerialization",
    "clear_secrets_backends_cache",
    "since_airflow",
    "since_kafka_provider",
]
