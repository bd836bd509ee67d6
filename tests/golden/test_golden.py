"""Messages of schema 1.0 can be read for ever, and are written as they always were."""

from __future__ import annotations

import datetime as dt

import pytest

from airflow_workflow_events import CloudEventsMode, EventSource, EventType
from airflow_workflow_events.events import decode, encode, to_json
from tests.golden import NAMES, document_of, headers_of, value_of

#: The original system wrote white space, and times without a zone.
WRITTEN_BY_OTHERS = {"original_system", "original_system_naive_time"}


def test_no_golden_message_has_been_removed() -> None:
    assert set(NAMES) >= {
        "domain_event",
        "minimal",
        "original_system",
        "original_system_naive_time",
        "structured",
        "task_retrying",
        "unknown_type_and_fields",
        "workflow_completed",
        "workflow_failed",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_message_is_read_with_all_it_says(name: str) -> None:
    event = decode(value_of(name), headers_of(name))

    document = document_of(name)
    for field in ("event_id", "event_type", "source", "workflow_id", "workflow_run_id"):
        assert getattr(event, field) == document[field]
    assert event.payload.data == document["payload"]["data"]
    assert (
        event.metadata.model_dump(mode="json", exclude_none=True).items()
        >= {name: value for name, value in document["metadata"].items() if name != "emitted_at"}.items()
    )
    assert (event.model_extra or {}).keys() == document.keys() - type(event).model_fields.keys()


@pytest.mark.parametrize("name", sorted(set(NAMES) - WRITTEN_BY_OTHERS))
def test_a_golden_message_is_written_again_with_the_same_bytes(name: str) -> None:
    value, headers = value_of(name), headers_of(name)
    mode = CloudEventsMode.STRUCTURED if name == "structured" else CloudEventsMode.BINARY

    record = encode(decode(value, headers), mode)

    assert record.value == value
    if headers:
        assert [(key, bytes(data).decode()) for key, data in record.headers if isinstance(data, bytes)] == [
            *headers.items()
        ]


@pytest.mark.parametrize("name", sorted(WRITTEN_BY_OTHERS))
def test_what_the_original_system_wrote_reads_the_same_after_being_written_again(name: str) -> None:
    event = decode(value_of(name))

    assert decode(to_json(event)) == event


def test_the_original_systems_message_parses_into_the_known_types() -> None:
    event = decode(value_of("original_system"))

    assert event.event_type is EventType.WORKFLOW_COMPLETED
    assert event.source is EventSource.AIRFLOW
    assert event.timestamp == dt.datetime(2026, 11, 23, 2, 44, 35, 216843, dt.UTC)
    assert event.payload.data == {"status": "success", "count": 100}
    assert (event.metadata.environment, event.metadata.version) == ("dev", "1.0")


def test_the_original_systems_naive_time_is_read_as_utc() -> None:
    event = decode(value_of("original_system_naive_time"))

    assert event.timestamp == dt.datetime(2026, 11, 23, 2, 44, 35, 216843, dt.UTC)
