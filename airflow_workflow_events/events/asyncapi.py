"""The published contract, as an AsyncAPI 3.0 document: topic, key, headers and value of every message.

It is generated from the model and the codec, its examples are records the codec made, and it is committed
beside the JSON Schema. ``make schema`` writes both anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_workflow_events.events import cloudevents
from airflow_workflow_events.events.cloudevents import CloudEventsMode
from airflow_workflow_events.events.codec import encode
from airflow_workflow_events.events.model import DEFAULT_TOPIC, SCHEMA_VERSION, WorkflowEvent
from airflow_workflow_events.events.schema import json_schema, write

ASYNCAPI_PATH = Path(__file__).parent / "schemas" / f"workflow-events-{SCHEMA_VERSION}.asyncapi.json"

# Source: the AsyncAPI 3.0.0 specification, and its Kafka binding.
_ASYNCAPI_VERSION = "3.0.0"
_KAFKA_BINDING_VERSION = "0.5.0"

_DEFINITION, _COMPONENT = "#/$defs/", "#/components/schemas/"
_EXAMPLE_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

_MESSAGES = {
    CloudEventsMode.BINARY: (
        "The event, with CloudEvents attributes as headers",
        "The default. The value is the event's JSON; headers repeat what routers and gateways need.",
    ),
    CloudEventsMode.STRUCTURED: (
        "The event in a CloudEvents envelope",
        "Written with cloudevents=structured. There is no ce_ header: they would mark a binary message.",
    ),
    CloudEventsMode.OFF: (
        "The event alone",
        "Written with cloudevents=off. The value is the same as in binary mode, without CloudEvents headers.",
    ),
}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document of the topic, for code generators, catalogues and portals."""
    channel = {"$ref": "#/channels/workflowEvents"}
    messages = [{"$ref": f"#/channels/workflowEvents/messages/{mode.value}"} for mode in CloudEventsMode]
    return {
        "asyncapi": _ASYNCAPI_VERSION,
        "id": "urn:airflow-workflow-events",
        "info": {
            "title": "Workflow events",
            "version": SCHEMA_VERSION,
            "description": (
                "Lifecycle events of workflows and their tasks. Delivery is at least once: dedupe by "
                "event_id. The events of one run share a partition and are in order. Readers ignore fields, "
                "event types and sources they do not know; within 1.x fields are only ever added."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": "workflow"}, {"name": "cloudevents"}],
        },
        "defaultContentType": cloudevents.JSON_CONTENT_TYPE,
        "channels": {
            "workflowEvents": {
                "address": DEFAULT_TOPIC,
                "title": "Workflow events",
                "description": "The default topic. A producer may be told to use another one.",
                "messages": {
                    mode.value: {"$ref": f"#/components/messages/{mode.value}"} for mode in CloudEventsMode
                },
                "bindings": {"kafka": {"topic": DEFAULT_TOPIC, "bindingVersion": _KAFKA_BINDING_VERSION}},
            }
        },
        "operations": {
            "publishWorkflowEvent": {
                "action": "send",
                "title": "Publish an event",
                "summary": "What a producer does when something happened to a run.",
                "channel": channel,
                "messages": messages,
            },
            "receiveWorkflowEvent": {
                "action": "receive",
                "title": "Receive an event",
                "summary": "What a consumer does: read, drop what it has seen by event_id, act.",
                "channel": channel,
                "messages": messages,
            },
        },
        "components": {
            "messages": {mode.value: _message(mode) for mode in CloudEventsMode},
            "correlationIds": {
                "event": _correlation("$message.payload#/metadata/correlation_id"),
                "envelope": _correlation("$message.payload#/data/metadata/correlation_id"),
            },
            "schemas": _schemas(),
        },
    }


def _message(mode: CloudEventsMode) -> dict[str, Any]:
    title, summary = _MESSAGES[mode]
    is_structured = mode is CloudEventsMode.STRUCTURED
    return {
        "name": f"workflow-event-{mode.value}",
        "title": title,
        "summary": summary,
        "contentType": _content_type(mode),
        "headers": _headers_schema(mode),
        "payload": {"$ref": _COMPONENT + ("CloudEvent" if is_structured else "WorkflowEvent")},
        "correlationId": {
            "$ref": f"#/components/correlationIds/{'envelope' if is_structured else 'event'}",
        },
        "bindings": {
            "kafka": {
                "key": {
                    "type": "string",
                    "description": (
                        "workflow_id/workflow_run_id, in UTF-8: the events of one run share a partition. "
                        "Keys are placed with murmur2, as Java clients place them."
                    ),
                    "examples": [_example_event().ordering_key],
                },
                "bindingVersion": _KAFKA_BINDING_VERSION,
            }
        },
        "examples": [_example(mode)],
    }


def _content_type(mode: CloudEventsMode) -> str:
    is_structured = mode is CloudEventsMode.STRUCTURED
    return cloudevents.STRUCTURED_CONTENT_TYPE if is_structured else cloudevents.JSON_CONTENT_TYPE


def _headers_schema(mode: CloudEventsMode) -> dict[str, Any]:
    """Describe the headers; on Kafka each is the text in UTF-8."""
    traceparent = {"type": "string", "description": "W3C trace context, where the event has one."}
    properties: dict[str, Any] = {}
    if mode is not CloudEventsMode.OFF:
        properties[cloudevents.CONTENT_TYPE_HEADER] = {"type": "string", "const": _content_type(mode)}
    if mode is CloudEventsMode.BINARY:
        for name, attribute in _attributes().items():
            properties[f"ce_{name}"] = attribute
    required = sorted(properties)
    properties[cloudevents.TRACEPARENT_HEADER] = traceparent
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _attributes() -> dict[str, Any]:
    """Describe CloudEvents' context attributes, which are headers in one mode and fields in another."""
    return {
        "specversion": {"type": "string", "const": cloudevents.SPEC_VERSION},
        "id": {"type": "string", "minLength": 1, "description": "The event_id; dedupe by it."},
        "source": {
            "type": "string",
            "format": "uri-reference",
            "description": "The source, followed by its instance where it has one: airflow/eu.",
        },
        "type": {"type": "string", "minLength": 1, "description": "The event_type."},
        "time": {"type": "string", "format": "date-time", "description": "The timestamp."},
        "subject": {"type": "string", "minLength": 1, "description": "The ordering key, as in Kafka's key."},
    }


def _schemas() -> dict[str, Any]:
    """Return the JSON Schema's parts under AsyncAPI's names: references there start at the document."""
    event: dict[str, Any] = json.loads(json.dumps(json_schema()).replace(_DEFINITION, _COMPONENT))
    definitions = event.pop("$defs")
    del event["$schema"], event["$id"]  # a schema object of AsyncAPI has neither
    envelope = {
        "type": "object",
        "title": "CloudEvent",
        "description": "The JSON format of CloudEvents 1.0, with the event as its data.",
        "properties": {
            **_attributes(),
            "datacontenttype": {"type": "string", "const": cloudevents.JSON_CONTENT_TYPE},
            "data": {"$ref": f"{_COMPONENT}WorkflowEvent"},
        },
        "required": ["specversion", "id", "source", "type", "data"],
    }
    return {"WorkflowEvent": event, "CloudEvent": envelope, **definitions}


def _correlation(location: str) -> dict[str, str]:
    return {
        "description": "Groups the events of one business process across workflows, where it is given.",
        "location": location,
    }


def _example_event() -> WorkflowEvent:
    return WorkflowEvent.model_validate(json_schema()["examples"][0])


def _example(mode: CloudEventsMode) -> dict[str, Any]:
    event = _example_event()
    metadata = event.metadata.model_copy(update={"traceparent": _EXAMPLE_TRACEPARENT})
    record = encode(event.model_copy(update={"metadata": metadata}), mode)
    headers = {name: data.decode() for name, data in record.headers if isinstance(data, bytes)}
    return {"name": f"completed-{mode.value}", "headers": headers, "payload": json.loads(record.value)}


def main() -> None:
    """Write the committed document anew."""
    write(ASYNCAPI_PATH, asyncapi())


if __name__ == "__main__":
    main()
