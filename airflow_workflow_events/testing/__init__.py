"""A kit for the tests of whoever publishes or reads workflow events.

pytest finds the fixtures by itself: ``workflow_events_broker``, ``published_events``,
``workflow_events_connections`` and ``workflow_events_listener``; see
:mod:`airflow_workflow_events.testing.pytest_plugin`. What is here serves other test runners, too.

pytest imports this package whether or not a test uses it, so each name loads its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_workflow_events.kafka.embedded import EmbeddedBroker
    from airflow_workflow_events.testing.airflow_options import AirflowConnections
    from airflow_workflow_events.testing.factories import make_event, make_lifecycle_event, run_events
    from airflow_workflow_events.testing.faults import broker_down, refusing_broker, slow_broker
    from airflow_workflow_events.testing.published import PublishedEvents

__all__ = [
    "AirflowConnections",
    "EmbeddedBroker",
    "PublishedEvents",
    "broker_down",
    "make_event",
    "make_lifecycle_event",
    "refusing_broker",
    "run_events",
    "slow_broker",
]

_MODULE_OF = {
    "AirflowConnections": "testing.airflow_options",
    "EmbeddedBroker": "kafka.embedded",
    "PublishedEvents": "testing.published",
    **dict.fromkeys(("make_event", "make_lifecycle_event", "run_events"), "testing.factories"),
    **dict.fromkeys(("broker_down", "refusing_broker", "slow_broker"), "testing.faults"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"airflow_workflow_events.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
