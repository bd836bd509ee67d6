"""What an event is: the model, its identity, its Kafka and CloudEvents form. Depends on pydantic alone."""

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
