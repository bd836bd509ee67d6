"""Names that tests take from Airflow, wherever the installed version has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


__all__ = [
    "AirflowRescheduleException",
    "AsyncCallback",
    "DagBag",
    "DagSerialization",
    "clear_secrets_backends_cache",
]
