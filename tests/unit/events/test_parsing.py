"""An event that is read in one go is the one the models make; what only they can judge is left to them."""

from __future__ import annotations

import copy
import datetime as dt
import json
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import from_json

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events import WorkflowEventMetadata, decode, to_json
from airflow_workflow_events.events.parsing import read_at_once
from tests.subprocesses import output_of

OPTIONAL_TEXTS = [
    name for name, field in WorkflowEventMetadata.model_fields.items() if field.annotation == str | None
]
FULL: dict[str, Any] = {
    "event_id": "e-1",
    "event_type": "workflow.completed",
    "source": "airflow",
    "workflow_id": "daily_sales",
    "workflow_run_id": "manual__1",
    "timestamp": "2026-11-23T02:44:35.216843Z",
    "payload": {"data": {"rows": 3, "share": 0.5, "note": None, "steps": ["a", {"ok": True}]}},
    "metadata": {
        "environment": "prod",
        "version": "1.0",
        **{name: name for name in OPTIONAL_TEXTS},
        "tags": ["sales"],
        "truncated": [],
        "redacted": ["payload.data.password"],
        "emitted_at": "2026-11-23T02:44:36+00:00",
    },
    "severity": "high",
}
PATHS = [
    (),
    *[(name,) for name in FULL],
    ("payload", "data"),
    ("payload", "data", "rows"),
    ("payload", "links"),
    *[("metadata", name) for name in FULL["metadata"]],
    ("metadata", "region"),
]
UNKNOWN = [("severity",), ("payload", "links"), ("metadata", "region")]
TIMES = [
    "2026-11-23T02:44:35Z",
    "2026-11-23T02:44:35.2Z",
    "2026-11-23T02:44:35.2168437Z",
    "2026-11-23T02:44:35+00:00",
    "2026-11-23T02:44:35-00:00",
    "2026-11-23T02:44:35+02:00",
    "2026-11-23T02:44:35",
    "2026-11-23 02:44:35Z",
    "2026-11-23T24:00:00Z",
    "2026-11-23T23:59:60Z",
    "2026-02-29T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+02:00",
    "9999-12-31T23:59:59-02:00",
    "2026-11-23T02:44Z",
    "2026-11-23",
    "2026-W48-1T00:00:00Z",
    "20261123T024435Z",
    "202\u0666-11-23T02:44:35Z",
    "2026-11-23T02:44:35Z\n",
    1_763_866_000,
    1_763_866_000.25,
    1e400,
]
DEEP: Any = json.loads("[" * 99 + "]" * 99)
VALUES = [
    None, True, 0, -1, 2**63, 2**1024 - 1, 2**1024, -(2**1024), 1.5, float("nan"), float("inf"),
    "", " ", "x", "x" * 255, "x" * 256, "ü", "\ud800", "1.0", "1.7", "1.", "2.0", "1.\u0661", "1.0\n",
    "task.failed", "langgraph", "with space", "a\x7f",
    [], ["x", ""], [None], [1], {}, {"data": {}}, {"data": None},
    {"environment": "p"}, {"a": {"b": [1, None]}}, DEEP, {"a": DEEP}, [DEEP], [[DEEP]], *TIMES,
]  # fmt: skip
ABSENT = object()


@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from([*VALUES, ABSENT])), max_size=4))
def test_what_is_read_at_once_is_what_the_models_make_of_it(
    changes: list[tuple[tuple[str, ...], Any]],
) -> None:
    document: Any = copy.deepcopy(FULL)
    for path, value in changes:
        document = changed(document, path, value)
    text = json.dumps(document).encode()

    at_once = read_at_once(text)

    if at_once is not None:
        assert state(at_once) == state(WorkflowEvent.model_validate(from_json(text, allow_inf_nan=False)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_data_is_read_at_once_as_the_models_take_it(value: Any) -> None:
    text = json.dumps(changed(FULL, ("payload", "data"), {"value": value})).encode()

    at_once = read_at_once(text)

    if at_once is not None:
        assert state(at_once) == state(WorkflowEvent.model_validate(from_json(text, allow_inf_nan=False)))


@pytest.mark.parametrize("time", TIMES[:7])
def test_what_others_write_is_read_at_once_too(time: str) -> None:
    text = json.dumps({**FULL, "timestamp": time, "links": [{"href": "x"}]}).encode()

    event = read_at_once(text)

    assert event is not None
    assert event.timestamp.tzinfo is dt.UTC
    assert event.model_extra == {"severity": "high", "links": [{"href": "x"}]}


def test_what_this_library_writes_is_read_at_once() -> None:
    event = WorkflowEvent.model_validate(FULL)

    read = read_at_once(to_json(event))

    assert read == event
    assert to_json(read) == to_json(event)


def test_an_event_is_whole_in_a_process_that_never_made_one() -> None:
    program = """
        import pickle, sys
        from airflow_workflow_events.events import to_json
        from airflow_workflow_events.events.parsing import read_at_once

        event = read_at_once(sys.argv[1].encode())
        assert pickle.loads(pickle.dumps(event)) == event.model_copy() == event
        print(to_json(event).decode())
    """
    text = to_json(WorkflowEvent.model_validate(FULL)).decode()

    assert output_of(sys.executable, "-c", textwrap.dedent(program), text).strip() == text


def test_an_event_within_a_cloud_event_is_read_at_once() -> None:
    envelope = json.dumps({"specversion": "1.0", "id": 7, "data": FULL}).encode()

    assert read_at_once(envelope, structured=True) == WorkflowEvent.model_validate(FULL)


@pytest.mark.parametrize("name", ["event_id", "timestamp", "payload", "metadata"])
def test_an_event_that_lacks_something_is_left_to_the_models(name: str) -> None:
    assert read_at_once(json.dumps(changed(FULL, (name,), ABSENT)).encode()) is None


@pytest.mark.parametrize("value", [b"", b"{", b"null", b"[]", b"\xff", b'{"data":1}'])
@pytest.mark.parametrize("structured", [False, True])
def test_what_is_no_event_at_all_is_left_to_the_models(value: bytes, structured: bool) -> None:
    assert read_at_once(value, structured=structured) is None


def test_of_all_events_few_are_left_to_the_models() -> None:
    left = [
        (path, value)
        for path in PATHS
        for value in [*VALUES, ABSENT]
        for text in [json.dumps(changed(FULL, path, value)).encode()]
        if read_at_once(text) is None and is_event(text)
    ]

    expected: list[tuple[tuple[str, ...], Any]] = [
        # empty text becomes absent
        *[(("metadata", name), "") for name in OPTIONAL_TEXTS],
        # which is filled in
        (("payload", "data"), ABSENT),
        *[(("payload",), value) for value in [*VALUES, ABSENT] if is_object_without_data(value)],
        # digits that are not ASCII's
        (("metadata", "version"), "1.\u0661"),
    ]
    assert sorted(left, key=repr) == sorted(expected, key=repr)


def changed(document: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return the document with something else, or nothing, at a path."""
    if not path:
        return {} if value is ABSENT else value
    if not isinstance(document, dict):
        return document
    name, *rest = path
    inner = changed(document.get(name, {}), tuple(rest), value) if rest else value
    return {key: item for key, item in {**document, name: inner}.items() if item is not ABSENT}


def state(model: Any) -> Any:
    """Return all that pydantic keeps in a model, types and order included."""
    if not isinstance(model, BaseModel):
        return type(model), repr(model)
    # In their order, which is that of the JSON it is written as.
    fields = [(name, state(value)) for name, value in model.__dict__.items()]
    return (
        type(model),
        fields,
        repr(model.__pydantic_extra__),
        model.__pydantic_fields_set__,
        model.__pydantic_private__,
    )


def is_event(text: bytes) -> bool:
    try:
        decode(text)
    except EventDecodeError:
        return False
    return True


def is_object_without_data(value: Any) -> bool:
    return value is ABSENT or (isinstance(value, dict) and "data" not in value)
