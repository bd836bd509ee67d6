"""Values framed by a schema registry's serializer: a zero byte, the schema's id in four bytes, the JSON.

JSON describes itself, so reading needs no registry: the frame is taken off and the id is of no use. It cannot
be mistaken, as no JSON text begins with a zero byte.
Source: Confluent's documentation of the Schema Registry, "Wire format".
"""

from __future__ import annotations

from airflow_workflow_events.errors import EventDecodeError

#: What a framed value begins with.
MAGIC_BYTE = b"\0"
_FRAME_BYTES = 5
# What a JSON object may begin with: RFC 8259's white space, or its brace.
_BEGINS_JSON = b" \t\r\n{"


def strip_confluent_frame(value: bytes) -> bytes:
    """Return the JSON in a framed value, and a value without a frame as it is.

    Args:
        value: the value of a Kafka message.

    Raises:
        EventDecodeError: the value is framed, and what follows the frame is no JSON object.
    """
    if not value.startswith(MAGIC_BYTE):
        return value
    if len(value) <= _FRAME_BYTES:
        raise EventDecodeError(
            f"the value begins as one framed for a schema registry, but ends after {len(value)} byte(s)"
        )
    if value[_FRAME_BYTES] not in _BEGINS_JSON:
        schema_id = int.from_bytes(value[1:_FRAME_BYTES], "big")
        raise EventDecodeError(
            f"the value is framed for a schema registry (schema id {schema_id}), and what follows is no JSON "
            "object: was it written by an Avro or a Protobuf serializer?"
        )
    return value[_FRAME_BYTES:]
