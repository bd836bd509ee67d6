"""Whatever is asked for and whatever a message holds, the consumer gives an answer and goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_workflow_events import ConfigurationError, WorkflowEvent
from airflow_workflow_events.events.codec import to_json
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.consumer_client import ConsumerClient
from airflow_workflow_events.kafka.intake import Intake, Passed
from airflow_workflow_events.metrics import NoMetrics
from tests.events import make_event
from tests.property import strategies

conditions: st.SearchStrategy[Any] = strategies.json_values | st.dictionaries(
    st.sampled_from(["$in", "$gt", "$gte", "$lt", "$lte", "$glob", "$exists", "$other"]),
    strategies.json_values,
    max_size=3,
)


@given(
    event=strategies.events(),
    name=st.text(min_size=1, max_size=10),
    data=st.dictionaries(strategies.texts, conditions, max_size=3),
)
def test_any_filter_is_refused_or_gives_an_answer(
    event: WorkflowEvent, name: str, data: dict[str, Any]
) -> None:
    try:
        wanted = EventFilter(workflow_id=name, data=data)
    except ConfigurationError:
        return
    assert wanted.matches(event) in {True, False}
    assert EventFilter(**json.loads(json.dumps(wanted.parameters))).matches(event) == wanted.matches(event)


@given(event=strategies.events())
def test_an_event_matches_what_it_holds(event: WorkflowEvent) -> None:
    # In a name, the characters of a glob mean what they mean in a glob; a blank one is taken for a mistake.
    names: dict[str, Any] = {
        field: value
        for field, value in (
            ("workflow_id", event.workflow_id),
            ("workflow_run_id", event.workflow_run_id),
            ("source", str(event.source)),
            ("event_type", str(event.event_type)),
        )
        if value.strip() and not set(value) & set("*?[")
    }
    data = {
        path: value
        for path, value in json.loads(to_json(event))["payload"]["data"].items()
        if path and "." not in path and not isinstance(value, dict)
    }

    options: dict[str, Any] = names | {"data": data}
    assert EventFilter(**options).matches(event)
    assert not EventFilter(**(names | {"workflow_id": event.workflow_id + "x"})).matches(event) or "*" in (
        event.workflow_id
    )


class Messages:
    """Stands for a librdkafka consumer that has these messages."""

    stopped = False
    moves: dict[Any, int] = {}  # noqa: RUF012

    def __init__(self, messages: Sequence[Any]) -> None:
        self._messages = list(messages)

    def check_usable(self) -> None: ...

    def serve(self) -> None: ...

    def store(self, positions: object) -> None: ...

    def next_batch(self, size: int, timeout: float | None) -> list[Any]:
        batch, self._messages = self._messages[:size], self._messages[size:]
        return batch

    def fail(self, error: BaseException) -> None:
        raise AssertionError(f"it cannot go on after {error!r}")


class AMessage:
    """Stands for librdkafka's message."""

    def __init__(self, value: bytes | None, headers: list[tuple[str, bytes | None]] | None) -> None:
        self._value, self._headers = value, headers

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 0, -1


nearly_json = strategies.json_values.map(lambda value: json.dumps(value).encode())
changed_events = st.tuples(st.binary(max_size=3), st.integers(0, 400)).map(
    lambda change: (good := to_json(make_event()))[: change[1]] + change[0] + good[change[1] + 1 :]
)
values = st.none() | st.binary(max_size=200) | nearly_json | changed_events
headers = st.none() | st.lists(
    st.tuples(
        st.text(max_size=10) | st.just("content-type"),
        st.none() | st.binary(max_size=30) | st.just(b"application/cloudevents+json"),
    ),
    max_size=4,
)


@given(messages=st.lists(st.tuples(values, headers), max_size=10))
def test_any_bytes_are_an_event_or_counted_as_poison(
    messages: list[tuple[bytes | None, list[tuple[str, bytes | None]] | None]],
) -> None:
    client: Any = Messages([AMessage(value, found) for value, found in messages])
    assert {name for name in vars(Messages) if not name.startswith("_")} <= set(dir(ConsumerClient)) | {
        "stopped",
        "moves",
    }
    intake = Intake(
        client, EventFilter(), max_event_bytes=1_000, dead_letters=None, seen=None, metrics=NoMetrics()
    )

    taken = intake.pull(0)

    assert len(taken) == len(messages)
    assert intake.poison.count == sum(isinstance(one, Passed) for one in taken)
