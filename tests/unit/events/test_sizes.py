"""A lifecycle event is shortened field by field until it fits, and says what was shortened."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_workflow_events import WorkflowEvent, WorkflowEventMetadata
from airflow_workflow_events.events import to_json
from airflow_workflow_events.events.sizes import SOFT_CAP_BYTES, fit
from tests.events import make_event

TRACE = "".join(f"  frame {number}\n" for number in range(20_000))


def failed(**data: Any) -> WorkflowEvent:
    return make_event(event_type="workflow.failed", payload={"data": {"state": "failed"} | data})


def test_an_event_that_fits_is_returned_as_it_is() -> None:
    event = failed(error={"stack_trace": "x" * 60_000})

    assert fit(event) is event


def test_the_soft_cap_is_64_kib() -> None:
    assert SOFT_CAP_BYTES == 64 * 1024


def test_a_long_stack_trace_keeps_its_beginning_and_its_end() -> None:
    event = failed(error={"type": "ValueError", "message": "no price", "stack_trace": TRACE})

    data = fit(event).payload.data

    shortened = data["error"]["stack_trace"]
    assert shortened.startswith("  frame 0\n")
    assert shortened.endswith("  frame 19999\n")
    assert "...[shortened]..." in shortened
    assert len(shortened) < 8_100
    assert (data["state"], data["error"]["type"], data["error"]["message"]) == (
        "failed",
        "ValueError",
        "no price",
    )


def test_what_was_shortened_is_named_in_the_metadata_beside_what_was_named_before() -> None:
    event = failed(error={"stack_trace": TRACE})
    marked = event.model_copy(
        update={"metadata": WorkflowEventMetadata(environment="p", truncated=["payload.data.note"])}
    )

    assert fit(marked).metadata.truncated == ["payload.data.error.stack_trace", "payload.data.note"]


def test_the_run_configuration_goes_before_the_error_is_cut_to_the_bone() -> None:
    event = failed(conf={"rows": ["x" * 100] * 1_000}, error={"stack_trace": TRACE, "message": "no price"})

    data = fit(event).payload.data

    assert data["conf"] is None
    assert len(data["error"]["stack_trace"]) > 7_000


def test_the_original_event_is_not_changed() -> None:
    event = failed(conf={"a": "x" * 70_000}, error={"stack_trace": TRACE})

    fit(event)

    assert event.payload.data["error"]["stack_trace"] == TRACE
    assert event.payload.data["conf"] is not None
    assert event.metadata.truncated is None


@pytest.mark.parametrize(
    "data",
    [
        {"bulk": "x" * 100_000},
        {"error": "x" * 100_000},
        {"error": {"detail": "x" * 100_000}},
        {"reason": ["x" * 100_000]},
        {"note": "🎉" * 100_000},
        {f"key {number}": "x" for number in range(20_000)},
        {"k" * 100_000: 1},
        {"url": "x" * 40_000, "note": "y" * 40_000, "bulk": "z" * 40_000},
    ],
    ids=["field", "error", "nested", "list", "note", "many fields", "long name", "several"],
)
def test_whatever_the_data_the_event_fits_and_keeps_its_identity(data: dict[str, Any]) -> None:
    event = failed(**data)

    smaller = fit(event)

    assert len(to_json(smaller)) <= SOFT_CAP_BYTES
    assert smaller.metadata.truncated
    for field in ("event_id", "event_type", "source", "workflow_id", "workflow_run_id", "timestamp"):
        assert getattr(smaller, field) == getattr(event, field)


def test_a_large_field_of_a_caller_goes_and_the_others_stay() -> None:
    data = fit(failed(bulk="x" * 100_000, rows=3)).payload.data

    assert data == {"state": "failed", "rows": 3, "bulk": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"environment": "p", "source_instance": "eu", "tags": ["t" * 100] * 1_000}},
        {"metadata": {"environment": "p", "source_instance": "eu"}, "links": ["x" * 100] * 1_000},
    ],
    ids=["tags", "unknown field"],
)
def test_what_is_large_outside_the_data_goes_last_and_the_identity_stays(fields: dict[str, Any]) -> None:
    event = make_event(**fields)

    smaller = fit(event)

    assert len(to_json(smaller)) <= SOFT_CAP_BYTES
    assert smaller.event_id == event.event_id
    assert (smaller.metadata.environment, smaller.metadata.source_instance) == ("p", "eu")
    assert smaller.metadata.truncated == ["metadata", "payload"]


def test_an_event_once_made_to_fit_is_left_alone_the_second_time() -> None:
    once = fit(failed(error={"stack_trace": TRACE}))

    assert fit(once) is once
