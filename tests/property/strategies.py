"""Generated events, and generated values that are none."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from airflow_workflow_events import EventSource, EventType, WorkflowEvent, WorkflowEventMetadata
from airflow_workflow_events.events import WorkflowEventPayload

# A space of identifiers that is small enough to meet itself and has what breaks parsers.
_LETTERS = st.characters(exclude_categories=["Cs"])
texts = st.text(_LETTERS, max_size=20)
names = st.text(_LETTERS, min_size=1, max_size=20)
dotted_types = st.from_regex(r"[^\s\x00-\x1f\x7f]{1,30}", fullmatch=True).filter(
    lambda text: text.isprintable() and all(not "\ud800" <= letter <= "\udfff" for letter in text)
)
_EARLIEST, _LATEST = dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31)  # noqa: DTZ001 - as hypothesis wants them
times = st.datetimes(_EARLIEST, _LATEST) | st.datetimes(
    _EARLIEST, _LATEST, timezones=st.timezones() | st.just(dt.UTC)
)

numbers = st.integers(-(2**1023), 2**1023) | st.floats(allow_nan=False, allow_infinity=False)
plain_scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    plain_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
json_objects = st.dictionaries(texts, json_values, max_size=5)

rich_scalars = (
    plain_scalars
    | times
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*EventType])
    | st.fractions(-1000, 1000)
)
rich_values = st.recursive(
    rich_scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner, max_size=4)
        | st.sets(st.integers() | texts, max_size=4)
    ),
    max_leaves=20,
)
rich_objects = st.dictionaries(texts, rich_values, max_size=5)


def _unknown_fields(model: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    known = {*dir(model), *model.model_fields}
    free = names.filter(lambda name: name not in known and not name.startswith("_"))
    return st.dictionaries(free, rich_values, max_size=2)


@st.composite
def metadata(draw: st.DrawFn) -> WorkflowEventMetadata:
    """Metadata with any of its fields, and some it does not know."""
    optional_texts = ("source_instance", "owner", "team", "correlation_id", "causation_id", "traceparent")
    fields: dict[str, Any] = {name: draw(st.none() | texts) for name in optional_texts}
    return WorkflowEventMetadata(
        environment=draw(names),
        version=f"1.{draw(st.integers(0, 99))}",
        tags=draw(st.none() | st.lists(texts, max_size=3)),
        emitted_at=draw(st.none() | times),
        **fields,
        **draw(_unknown_fields(WorkflowEventMetadata)),
    )


@st.composite
def events(draw: st.DrawFn, data: st.SearchStrategy[dict[str, Any]] = rich_objects) -> WorkflowEvent:
    """Any event the model accepts."""
    payload = WorkflowEventPayload(data=draw(data), **draw(_unknown_fields(WorkflowEventPayload)))
    return WorkflowEvent(
        event_id=draw(names | st.uuids().map(str)),
        event_type=draw(st.sampled_from([*EventType]) | dotted_types),
        source=draw(st.sampled_from([*EventSource]) | names),
        workflow_id=draw(names),
        workflow_run_id=draw(names),
        timestamp=draw(times),
        payload=payload,
        metadata=draw(metadata()),
        **draw(_unknown_fields(WorkflowEvent)),
    )


refused_values = st.sampled_from(
    [float("nan"), float("inf"), b"", object(), "\ud800", 2**1024, Decimal("NaN"), 1j, {(1,): 2}]
)

header_values = st.none() | st.binary(max_size=30) | texts
header_names = st.sampled_from(["content-type", "Content-Type", "ce_id", "traceparent"]) | texts
content_types = st.sampled_from([b"application/cloudevents+json", "application/json", b"\xff", None])
headers = (
    st.none()
    | st.lists(st.tuples(header_names, header_values | content_types), max_size=4)
    | st.dictionaries(header_names, header_values | content_types, max_size=4)
)
