"""What an event is: the model, its identity, its Kafka and CloudEvents form. Depends on pydantic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_workflow_events.lazy_names import lazy_names

if TYPE_CHECKING:
    from airflow_workflow_events.events.cloudevents import CloudEventsMode
    from airflow_workflow_events.events.codec import MAX_EVENT_BYTES, KafkaRecord, decode, encode, to_json
    from airflow_workflow_events.events.identity import lifecycle_event_id
    from airflow_workflow_events.events.model import (
        DEFAULT_TOPIC,
        SCHEMA_VERSION,
        EventSource,
        EventType,
        WorkflowEvent,
        WorkflowEventMetadata,
        WorkflowEventPayload,
    )

__all__ = [
    "DEFAULT_TOPIC",
    "MAX_EVENT_BYTES",
    "SCHEMA_VERSION",
    "CloudEventsMode",
    "EventSource",
    "EventType",
    "KafkaRecord",
    "WorkflowEvent",
    "WorkflowEventMetadata",
    "WorkflowEventPayload",
    "decode",
    "encode",
    "lifecycle_event_id",
    "to_json",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CloudEventsMode": f"{__name__}.cloudevents",
        **dict.fromkeys(
            ("MAX_EVENT_BYTES", "KafkaRecord", "decode", "encode", "to_json"), f"{__name__}.codec"
        ),
        "lifecycle_event_id": f"{__name__}.identity",
        **dict.fromkeys(
            (
                "DEFAULT_TOPIC",
                "SCHEMA_VERSION",
                "EventSource",
                "EventType",
                "WorkflowEvent",
                "WorkflowEventMetadata",
                "WorkflowEventPayload",
            ),
            f"{__name__}.model",
        ),
    },
)
