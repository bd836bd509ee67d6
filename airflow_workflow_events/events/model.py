"""The workflow event, schema version 1.0: what every message on the topic says.

A producer is strict (a model refuses what no reader could use), a reader is tolerant: types, sources and
fields it does not know are kept, and any 1.x version is accepted.
"""

from __future__ import annotations

import datetime as dt
import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, cast
from uuid import UUID, uuid4

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializeAsAny,
    WithJsonSchema,
    model_validator,
)
from pydantic.functional_validators import AfterValidator
from pydantic_core import CoreSchema, core_schema

from airflow_workflow_events import forks
from airflow_workflow_events.errors import ConfigurationError, EventValidationError
from airflow_workflow_events.events.json_values import to_json_object, to_json_value

#: The version this package writes. A change that breaks readers of 1.x needs a new major version.
SCHEMA_VERSION = "1.0"
_SAME_MAJOR = SCHEMA_VERSION.partition(".")[0] + "."

#: The topic of the original system; every producer's default.
DEFAULT_TOPIC = "workflow-events"


class EventType(StrEnum):
    """What happened. A domain's own dotted type, e.g. ``"orders.loaded"``, may be used in its place."""

    WORKFLOW_TRIGGERED = "workflow.triggered"
    WORKFLOW_STARTED = "workflow.started"
    WORKFLOW_COMPLETED = "workflow.completed"
    WORKFLOW_FAILED = "workflow.failed"
    WORKFLOW_DEADLINE_MISSED = "workflow.deadline_missed"
    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TASK_RETRYING = "task.retrying"
    TASK_SKIPPED = "task.skipped"


class EventSource(StrEnum):
    """The system the workflow runs in. Any other name may be used in its place."""

    AIRFLOW = "airflow"
    FASTAPI = "fastapi"
    LANGGRAPH = "langgraph"


def to_utc(value: dt.datetime) -> dt.datetime:
    """Put a time into UTC. A naive one is taken as UTC, as the original system wrote ``utcnow()``.

    Raises:
        ValueError: in UTC it lies outside the years 1 to 9999.
    """
    if value.tzinfo is None:
        return value.replace(tzinfo=dt.UTC)
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 once it is in UTC") from None


def _unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is no Unicode text") from None
    return value


def _text_or_none(value: object) -> object:
    """Absent is null, never an empty string."""
    if value == "":
        return None
    return _unicode(value) if type(value) is str else value  # pydantic refuses it in any other kind of text


def _id_text(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


UtcDatetime = Annotated[dt.datetime, AfterValidator(to_utc)]
"""A time in UTC, serialised with ``Z``; a naive one is taken as UTC."""

Text = Annotated[str, Field(min_length=1)]
AnyText = Annotated[str, AfterValidator(_unicode)]
# The first error will do: one error takes a hundred times the room of a wrong item, and there may be 500,000.
AnyTexts = Annotated[list[AnyText], Field(fail_fast=True)]
OptionalText = Annotated[str | None, BeforeValidator(_text_or_none)]
#: The most characters an id may have.
MAX_ID_CHARACTERS = 255
#: No white space or control characters: a type is routed on, filtered on and written into a header.
TYPE_PATTERN = r"^[^\s\x00-\x1f\x7f]+$"
#: The most characters an event type may have.
MAX_TYPE_CHARACTERS = 255
DottedType = Annotated[str, Field(min_length=1, max_length=MAX_TYPE_CHARACTERS, pattern=TYPE_PATTERN)]


def check_event_type(event_type: object) -> str:
    """Return the event type, if an event may have it.

    Raises:
        ConfigurationError: it is no text of 1 to 255 characters without white space.
    """
    text = str(event_type) if isinstance(event_type, str) else ""
    if not re.fullmatch(TYPE_PATTERN, text) or len(text) > MAX_TYPE_CHARACTERS:
        raise ConfigurationError(
            f"event_type is {event_type!r}: use an EventType or a dotted text without spaces, such as "
            "'orders.loaded'"
        )
    return text


class _AsText:
    """Serialise an enum that is a string as the string it is, without asking for its ``value``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.simple_ser_schema("str")
        return cast("CoreSchema", {**handler(source), "serialization": text})


class _Model(BaseModel):
    """Frozen, so that an event cannot change between being built and sent; unknown fields are kept."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        # Most processes that import the package only parse DAGs: the first event builds the models.
        defer_build=True,
        extra="allow",
        # A value may be a secret, and validation errors are logged.
        hide_input_in_errors=True,
        # NaN could only come in by changing a dict inside a built event; the codec looks for it.
        ser_json_inf_nan="constants",
    )

    _place: ClassVar[str] = ""
    """Where the model stands in an event, as the beginning of a path."""

    @model_validator(mode="after")
    def _extra_fields_are_json(self) -> Any:
        """Hold unknown fields to the same rules as known ones; null is the same as absent."""
        _complete(type(self))  # a model inside another one is validated without being built itself
        extra = self.__pydantic_extra__
        if extra:
            for name, value in list(extra.items()):
                if value is None:
                    del extra[name]
                else:
                    extra[name] = to_json_value(value, f"{self._place}{name}")
        return self

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:  # type: ignore[override]
        """Make a model of values that are right already, without validating them; see pydantic."""
        _complete(cls)
        return super().model_construct(_fields_set, **values)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        _complete(type(self))
        super().__setstate__(state)


def _complete(model: type[BaseModel]) -> None:
    """Build a model whose instance comes into being in another way than through its constructor.

    pydantic below 2.14 cannot write an instance of a model that is not built yet, where ``SerializeAsAny``
    has it look at the instance's own class.
    """
    if not model.__pydantic_complete__:
        model.model_rebuild()


def _payload_data(value: object) -> dict[str, Any]:
    return to_json_object(value, "payload.data")


class WorkflowEventPayload(_Model):
    """What the event is about.

    Args:
        data: any JSON object, or a pydantic model or dataclass. Datetimes, decimals, UUIDs, enums, sets and
            nested models are converted when the payload is built. Default ``{}``.

    Raises:
        pydantic.ValidationError: a value JSON cannot carry; the message names its path, e.g.
            ``payload.data.rows[3].price``.
    """

    _place: ClassVar[str] = "payload."

    data: Annotated[
        dict[str, Any],
        BeforeValidator(_payload_data),
        WithJsonSchema({"additionalProperties": True, "type": "object"}),
    ] = Field(
        default_factory=dict, description="What happened, as a JSON object of the event type's own shape."
    )


class WorkflowEventMetadata(_Model):
    """Where the event comes from and how it relates to others. Everything but the environment is optional.

    Args:
        environment: the deployment's stage, e.g. ``"prod"``.
        version: the schema version, ``major.minor``. Default ``"1.0"``.
        source_instance: which of several deployments of the source, e.g. ``"airflow-eu"``.
        tags: the workflow's tags.
        owner: who owns the workflow.
        team: the team the workflow belongs to.
        correlation_id: groups the events of one business process across workflows.
        causation_id: the ``event_id`` of the event that caused this one.
        traceparent: the W3C trace context, also sent as a header.
        emitted_at: when the event was produced, as opposed to when it happened.
        emitted_by: ``operator``, ``callback``, ``notifier``, ``listener`` or ``reconcile``.
        producer: the producing library and its version.
        orchestrator_version: e.g. Airflow's version.
        truncated: paths of the fields that were shortened to fit the size cap.
        redacted: paths of the fields in which a secret was masked.
    """

    _place: ClassVar[str] = "metadata."

    environment: Text = Field(description="The deployment's stage, e.g. prod.")
    version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] = Field(
        default=SCHEMA_VERSION, description="Schema version, major.minor. Readers of 1.0 read every 1.x."
    )
    source_instance: OptionalText = Field(default=None, description="Which deployment of the source.")
    tags: AnyTexts | None = Field(default=None, description="The workflow's tags.")
    owner: OptionalText = Field(default=None, description="Who owns the workflow.")
    team: OptionalText = Field(default=None, description="The team the workflow belongs to.")
    correlation_id: OptionalText = Field(default=None, description="Groups events of one business process.")
    causation_id: OptionalText = Field(default=None, description="The event_id of the causing event.")
    traceparent: OptionalText = Field(default=None, description="W3C trace context.")
    emitted_at: UtcDatetime | None = Field(default=None, description="When the event was produced.")
    emitted_by: OptionalText = Field(
        default=None, description="operator, callback, notifier, listener or reconcile."
    )
    producer: OptionalText = Field(default=None, description="The producing library and its version.")
    orchestrator_version: OptionalText = Field(default=None, description="E.g. Airflow's version.")
    truncated: AnyTexts | None = Field(default=None, description="Paths of the fields that were shortened.")
    redacted: AnyTexts | None = Field(default=None, description="Paths of the fields with masked secrets.")

    @model_validator(mode="after")
    def _readable_version(self) -> WorkflowEventMetadata:
        if not self.version.startswith(_SAME_MAJOR):
            raise EventValidationError(
                "metadata.version",
                f"is {self.version}, and this library reads 1.x: upgrade it to read newer events",
            )
        return self


class WorkflowEvent(_Model):
    """One thing that happened to one run of one workflow.

    Args:
        event_type: what happened: an :class:`EventType` or a domain's own dotted type.
        source: the system it happened in: an :class:`EventSource` or another name.
        workflow_id: the workflow, in Airflow the DAG id.
        workflow_run_id: its run, in Airflow the run id.
        payload: what the event is about. Default: empty.
        metadata: where it comes from.
        event_id: identifies the event; consumers dedupe by it. Default: a random UUID. Lifecycle events have
            a deterministic one, see :func:`airflow_workflow_events.events.lifecycle_event_id`.
        timestamp: when it happened. Default: now. A naive time is taken as UTC.

    Raises:
        pydantic.ValidationError: a field is missing or wrong; values are left out of the message.
    """

    event_id: Annotated[
        str,
        BeforeValidator(_id_text),
        Field(min_length=1, max_length=MAX_ID_CHARACTERS),
    ] = Field(default_factory=lambda: str(uuid4()), description="Identifies the event; dedupe by it.")
    event_type: Annotated[EventType | DottedType, _AsText()] = Field(
        union_mode="left_to_right", description="What happened."
    )
    source: Annotated[EventSource | Text, _AsText()] = Field(
        union_mode="left_to_right", description="Where it happened."
    )
    workflow_id: Text = Field(description="The workflow, in Airflow the DAG id.")
    workflow_run_id: Text = Field(description="The run, in Airflow the run id.")
    timestamp: UtcDatetime = Field(default_factory=_now, description="When it happened, in UTC.")
    # A subclass of either, with typed fields of a domain, is written with all its fields.
    payload: SerializeAsAny[WorkflowEventPayload] = Field(default_factory=WorkflowEventPayload)
    metadata: SerializeAsAny[WorkflowEventMetadata]

    @property
    def ordering_key(self) -> str:
        """``workflow_id/workflow_run_id``: Kafka's key, so that the events of a run share a partition."""
        return f"{self.workflow_id}/{self.workflow_run_id}"


def build_models() -> None:
    """Build the models, for those who make instances of them past their constructors."""
    for model in (WorkflowEventPayload, WorkflowEventMetadata, WorkflowEvent):
        _complete(model)


@lru_cache(maxsize=1)
def _use_once() -> None:
    event = WorkflowEvent(
        event_type="fork",
        source="fork",
        workflow_id="fork",
        workflow_run_id="fork",
        metadata=WorkflowEventMetadata(environment="fork"),
    )
    WorkflowEvent.model_validate_json(event.model_dump_json())


# pydantic builds a model, and what serialises it, under locks. A child forked while another thread builds
# one would wait for its lock for ever, so they are built before any fork; the children need not do it then.
forks.register(before=_use_once)
