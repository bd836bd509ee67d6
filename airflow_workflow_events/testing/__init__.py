"""A kit for the tests of whoever publishes or reads workflow events.

pytest finds the fixtures by itself: ``workflow_events_broker``, ``published_events``,
``workflow_events_connections`` and ``workflow_events_listener``; see
:mod:`airflow_workflow_events.testing.pytest_plugin`. What is here serves other test runners, too.

pytest imports this package whether or not a test uses it, so each name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_workflow_events.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AirflowConnections": f"{__name__}.airflow_options",
        "EmbeddedBroker": "airflow_workflow_events.kafka.embedded",
        "PublishedEvents": f"{__name__}.published",
        **dict.fromkeys(("make_event", "make_lifecycle_event", "run_events"), f"{__name__}.factories"),
        **dict.fromkeys(("broker_down", "refusing_broker", "slow_broker"), f"{__name__}.faults"),
    },
)
