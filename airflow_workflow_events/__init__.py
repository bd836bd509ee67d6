"""Workflow lifecycle events on Kafka: a typed producer, and the Airflow provider built on it.

Importing this package imports neither Airflow nor Kafka; each public name loads its module on first use,
because every process that parses DAGs imports the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_workflow_events.errors import (
        ConfigurationError,
        ConsumerClosedError,
        EventDecodeError,
        EventSerializationError,
        EventTooLargeError,
        EventValidationError,
        KafkaError,
        KafkaTimeoutError,
        ProducerClosedError,
        WorkflowEventsError,
    )
    from airflow_workflow_events.events import (
        CloudEventsMode,
        EventSource,
        EventType,
        WorkflowEvent,
        WorkflowEventMetadata,
        WorkflowEventPayload,
    )
    from airflow_workflow_events.events.seen import SeenInMemory, SeenInSqlite
    from airflow_workflow_events.kafka.aio import AsyncWorkflowEventProducer
    from airflow_workflow_events.kafka.aio_consumer import AsyncWorkflowEventConsumer
    from airflow_workflow_events.kafka.consumer import WorkflowEventConsumer
    from airflow_workflow_events.kafka.embedded import EmbeddedBroker
    from airflow_workflow_events.kafka.producer import WorkflowEventProducer
    from airflow_workflow_events.kafka.reports import DeliveryReport
    from airflow_workflow_events.version import __version__

__all__ = [
    "AsyncWorkflowEventConsumer",
    "AsyncWorkflowEventProducer",
    "CloudEventsMode",
    "ConfigurationError",
    "ConsumerClosedError",
    "DeliveryReport",
    "EmbeddedBroker",
    "EventDecodeError",
    "EventSerializationError",
    "EventSource",
    "EventTooLargeError",
    "EventType",
    "EventValidationError",
    "KafkaError",
    "KafkaTimeoutError",
    "ProducerClosedError",
    "SeenInMemory",
    "SeenInSqlite",
    "WorkflowEvent",
    "WorkflowEventConsumer",
    "WorkflowEventMetadata",
    "WorkflowEventPayload",
    "WorkflowEventProducer",
    "WorkflowEventsError",
    "__version__",
]

_MODULE_OF = {
    **dict.fromkeys(
        (
            "ConfigurationError",
            "ConsumerClosedError",
            "EventDecodeError",
            "EventSerializationError",
            "EventTooLargeError",
            "EventValidationError",
            "KafkaError",
            "KafkaTimeoutError",
            "ProducerClosedError",
            "WorkflowEventsError",
        ),
        "errors",
    ),
    **dict.fromkeys(
        (
            "CloudEventsMode",
            "EventSource",
            "EventType",
            "WorkflowEvent",
            "WorkflowEventMetadata",
            "WorkflowEventPayload",
        ),
        "events",
    ),
    "AsyncWorkflowEventConsumer": "kafka.aio_consumer",
    "AsyncWorkflowEventProducer": "kafka.aio",
    "DeliveryReport": "kafka.reports",
    "EmbeddedBroker": "kafka.embedded",
    "SeenInMemory": "events.seen",
    "SeenInSqlite": "events.seen",
    "WorkflowEventConsumer": "kafka.consumer",
    "WorkflowEventProducer": "kafka.producer",
    "__version__": "version",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
