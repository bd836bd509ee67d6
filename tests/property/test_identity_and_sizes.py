"""Ids never collide, and an event always fits."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.events import lifecycle_event_id, to_json
from airflow_workflow_events.events.sizes import fit
from tests.property import strategies

# Few enough to differ in one place only, and full of what could run together.
short = st.sampled_from(["a", "b", "ab", "a,b", '"', "", "a/b", "null", "1", "ä"])
small = st.none() | st.integers(0, 3)
instants = st.none() | st.datetimes(
    dt.datetime(2026, 1, 1),  # noqa: DTZ001 - hypothesis wants its bounds naive
    dt.datetime(2026, 1, 2),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)
identities = st.fixed_dictionaries(
    {
        "event_type": short,
        "workflow_id": short,
        "workflow_run_id": short,
        "source_instance": short.filter(bool) | st.none(),
        "clear_number": small,
        "run_started_at": instants,
        "task_id": st.none() | short,
        "map_index": small,
        "try_number": small,
    }
)


@given(st.lists(identities, min_size=2, max_size=60, unique_by=lambda identity: tuple(identity.items())))
def test_different_happenings_never_have_the_same_id(found: list[dict[str, Any]]) -> None:
    assert len({lifecycle_event_id(**identity) for identity in found}) == len(found)


@given(identities)
def test_the_same_happening_always_has_the_same_id(identity: dict[str, Any]) -> None:
    assert lifecycle_event_id(**identity) == lifecycle_event_id(**dict(reversed(identity.items())))


# Lengths around the cap, and the fields that are shortened first.
bulks = st.integers(0, 6_000).map(lambda length: "xü🎉"[length % 3] * length)
lifecycle_fields = st.sampled_from(["conf", "reason", "note", "url", "failed_tasks", "state"])
errors = st.fixed_dictionaries({}, optional={"stack_trace": bulks, "message": bulks, "type": bulks})
bulky = st.dictionaries(lifecycle_fields | strategies.texts, bulks | strategies.json_values, max_size=5)
lifecycle_data = st.builds(lambda data, error: data | {"error": error}, bulky, errors | bulks)


@given(event=strategies.events(lifecycle_data), cap_bytes=st.integers(4_096, 20_000))
def test_any_event_fits_and_keeps_what_identifies_it(event: WorkflowEvent, cap_bytes: int) -> None:
    before = to_json(event)

    smaller = fit(event, cap_bytes)

    assert len(to_json(smaller)) <= cap_bytes
    for field in ("event_id", "event_type", "source", "workflow_id", "workflow_run_id", "timestamp"):
        assert getattr(smaller, field) == getattr(event, field)
    for field in ("environment", "version", "source_instance"):
        assert getattr(smaller.metadata, field) == getattr(event.metadata, field)
    assert (smaller is event) == (len(before) <= cap_bytes)
    assert smaller is event or smaller.metadata.truncated
    assert to_json(event) == before
