"""Reading the JSON of an event in one go: what a consumer does a hundred thousand times.

The models call Python functions for most fields, since Python code may give them anything. A JSON parser
makes no lone surrogates and no objects of any class, so pydantic can check what it has made all but alone,
in little more than half the time.

What is refused here is not wrong for that: the models then say whether it is an event. What is accepted is
the very event that they would make.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from functools import lru_cache

from pydantic import BaseModel
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, core_schema

from airflow_workflow_events import forks
from airflow_workflow_events.events.json_values import is_within_limits, may_name_non_finite
from airflow_workflow_events.events.model import (
    MAX_ID_CHARACTERS,
    MAX_TYPE_CHARACTERS,
    SCHEMA_VERSION,
    TYPE_PATTERN,
    EventSource,
    EventType,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
    build_models,
    to_utc,
)

# As this library, JavaScript and Python's isoformat() write a time in UTC.
_UTC_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|\+00:00)$"


def read_at_once(value: bytes, *, structured: bool = False) -> WorkflowEvent | None:
    """Return the event, or ``None`` where only the models can tell whether it is one.

    Nothing is raised; :func:`~airflow_workflow_events.events.codec.decode` says what is wrong with a message.

    Args:
        value: the JSON of an event, in UTF-8.
        structured: whether it is that of a CloudEvent which has the event as its data. Default ``False``.
    """
    if may_name_non_finite(value):  # which the parser takes for a number
        return None
    validators = _validators()
    try:
        event: WorkflowEvent = (
            validators[1].validate_json(value)["data"] if structured else validators[0].validate_json(value)
        )
    except ValueError:
        return None
    # After all of it, as an error for each of thousands of fields would take a multiple of the time.
    payload, metadata = event.payload, event.metadata
    data = payload.data
    if type(data) is not dict or not is_within_limits(data):
        return None
    if event.__pydantic_extra__ or payload.__pydantic_extra__ or metadata.__pydantic_extra__:
        return event if all(map(_take_extra, (event, payload, metadata))) else None
    return event


def _take_extra(model: BaseModel) -> bool:
    """Take the fields that nobody knows as they are, but for those that are null, which stand for absent."""
    fields = model.__pydantic_extra__ or {}
    for name in [name for name, value in fields.items() if value is None]:
        del fields[name]
    return is_within_limits(fields, depth=-1)


@lru_cache(maxsize=1)
def _validators() -> tuple[SchemaValidator, SchemaValidator]:
    """Return that of an event, and that of a CloudEvent with one."""
    build_models()
    event = _event()
    envelope = core_schema.typed_dict_schema({"data": core_schema.typed_dict_field(event)})
    # Keys repeat from event to event; values, such as ids and times, hardly do.
    config = CoreConfig(cache_strings="keys")
    return SchemaValidator(event, config), SchemaValidator(envelope, config)


# Before any fork, as the models are: no child has to build them then, or finds them half built.
forks.register(before=_validators)


def _event() -> CoreSchema:
    text, time = core_schema.str_schema(min_length=1), _time()
    own_type = core_schema.str_schema(min_length=1, max_length=MAX_TYPE_CHARACTERS, pattern=TYPE_PATTERN)
    special: dict[str, CoreSchema] = {
        "environment": text,
        "version": core_schema.with_default_schema(
            core_schema.str_schema(pattern=r"^1\.[0-9]+$"), default=SCHEMA_VERSION
        ),
        "emitted_at": _optional(time),
        **dict.fromkeys(
            ("tags", "truncated", "redacted"),
            # The first error will do: an error takes a hundred times the room of what is wrong.
            _optional(core_schema.list_schema(core_schema.str_schema(), fail_fast=True)),
        ),
    }
    # In the order of the model's fields, which is that of the JSON it is written as.
    metadata = {name: special.get(name, _optional(text)) for name in WorkflowEventMetadata.model_fields}
    return _model(
        WorkflowEvent,
        {
            "event_id": core_schema.str_schema(min_length=1, max_length=MAX_ID_CHARACTERS),
            "event_type": _member_or(EventType, own_type),
            "source": _member_or(EventSource, text),
            "workflow_id": text,
            "workflow_run_id": text,
            "timestamp": time,
            "payload": _model(WorkflowEventPayload, {"data": core_schema.any_schema()}),
            "metadata": _model(WorkflowEventMetadata, metadata),
        },
    )


def _model(model: type[BaseModel], fields: dict[str, CoreSchema]) -> CoreSchema:
    return core_schema.model_schema(
        model,
        core_schema.model_fields_schema(
            {name: core_schema.model_field(schema) for name, schema in fields.items()},
            extra_behavior="allow",
        ),
        config=CoreConfig(extra_fields_behavior="allow"),
    )


def _optional(schema: CoreSchema) -> CoreSchema:
    return core_schema.with_default_schema(core_schema.nullable_schema(schema), default=None)


def _member_or(members: type[StrEnum], schema: CoreSchema) -> CoreSchema:
    member = core_schema.enum_schema(members, list(members), sub_type="str")
    return core_schema.union_schema([member, schema], mode="left_to_right")


def _time() -> CoreSchema:
    # Converting from pydantic's own time zone would be a tenth of all the time; this needs no conversion.
    utc = core_schema.no_info_after_validator_function(
        dt.datetime.fromisoformat, core_schema.str_schema(pattern=_UTC_TIME)
    )
    other = core_schema.no_info_after_validator_function(to_utc, core_schema.datetime_schema())
    return core_schema.union_schema([utc, other], mode="left_to_right")
