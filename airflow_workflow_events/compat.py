"""Names of Airflow that stand elsewhere in some of the supported versions.

Airflow's constraints pin the compatibility provider together with Airflow, so each Airflow comes with its own
``airflow.providers.common.compat.sdk``. Some of the names here came into it later than the oldest supported
version. The others are here because modules that users import take them from here, which without Airflow says
what to install.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("airflow") is None:
    raise ModuleNotFoundError(
        "this part of airflow_workflow_events needs Apache Airflow, which is not installed: "
        "pip install airflow-workflow-events (airflow-workflow-events-core comes without it)",
        name="airflow",
    )

try:
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowPlugin,
        AirflowSensorTimeout,
        AirflowSkipException,
        BaseNotifier,
        BaseOperator,
        BaseSensorOperator,
        DecoratedOperator,
        PokeReturnValue,
        Stats,
        TaskDecorator,
        conf,
        context_merge,
        hookimpl,
        redact,
        task_decorator_factory,
    )
except ImportError:  # common-compat below 1.12; below 1.8 it has no such module
    from airflow.configuration import conf
    from airflow.exceptions import (  # type: ignore[attr-defined,no-redef]
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
    from airflow.listeners import hookimpl
    from airflow.plugins_manager import AirflowPlugin  # type: ignore[assignment]
    from airflow.sdk import BaseNotifier, BaseOperator, BaseSensorOperator, PokeReturnValue
    from airflow.sdk._shared.secrets_masker import redact
    from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
    from airflow.sdk.definitions.context import context_merge
    from airflow.stats import Stats

try:
    from airflow.providers.common.compat.sdk import determine_kwargs
except ImportError:  # common-compat below 1.14.1
    try:
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:  # Airflow below 3.2
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]

try:
    from airflow.providers.common.compat.sdk import mask_secret
except ImportError:  # common-compat below 1.22
    from airflow.sdk.log import mask_secret

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseNotifier",
    "BaseOperator",
    "BaseSensorOperator",
    "DecoratedOperator",
    "PokeReturnValue",
    "Stats",
    "TaskDecorator",
    "conf",
    "context_merge",
    "determine_kwargs",
    "hookimpl",
    "mask_secret",
    "redact",
    "task_decorator_factory",
]
