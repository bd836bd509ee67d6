"""Whatever a context holds, or fails to hold: an event, or an error that says why there is none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DagRunState, TaskInstanceState
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_workflow_events import ConfigurationError, EventType
from airflow_workflow_events.callbacks import publish_on_failure, publish_on_success, workflow_event_callback
from airflow_workflow_events.events.codec import decode, encode
from airflow_workflow_events.lifecycle.translate import Outcome, lifecycle_event
from airflow_workflow_events.notifications import WorkflowEventNotifier
from airflow_workflow_events.settings import Settings

ATTRIBUTES = (
    "clear_number",
    "conf",
    "context_carrier",
    "dag_id",
    "dag_run_id",
    "data_interval_end",
    "data_interval_start",
    "deadline_time",
    "end_date",
    "get_task_states",
    "id",
    "logical_date",
    "map_index",
    "max_tries",
    "owner",
    "queued_at",
    "run_id",
    "run_type",
    "start_date",
    "state",
    "tags",
    "task",
    "task_id",
    "task_type",
    "team_name",
    "triggered_by",
    "triggering_user_name",
    "try_number",
)
KEYS = ("dag", "dag_run", "deadline", "exception", "logical_date", "reason", "run_id", "task", "ti")
OPTIONS = Settings(
    conn_id="workflow_events_default",
    topic="workflow-events",
    environment="test",
    source_instance=None,
    callback_timeout_seconds=10,
    conf_keys=frozenset({"a"}),
)


class Thing:
    """An object with some attributes; reading others, and putting it into words, may raise."""

    def __init__(self, attributes: dict[str, Any], raising: set[str]) -> None:
        self.__dict__.update(attributes)
        self.raising = raising

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("raising", ()):
            raise RuntimeError(name)
        raise AttributeError(name)

    def __str__(self) -> str:
        if "str" in self.raising:
            raise RuntimeError("no words")
        return "a thing"


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the supervisor is gone")


# Lone surrogates are in: the name of a file that is not UTF-8 has them.
texts = st.text(max_size=8) | st.sampled_from(["", "r", "failed", "\udcff", "a\ud800"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.binary(max_size=4),
    st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates(),
    st.sampled_from([dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))]),
    st.sampled_from([*DagRunState, *TaskInstanceState]),
    st.sampled_from([ValueError("x"), OddError(), KeyError()]),
    st.sampled_from([_raise, lambda *_, **__: None, lambda *_, **__: {"r": {"t": "failed"}}, object()]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(texts | st.just("a") | st.integers(), inner, max_size=3),
        st.builds(
            Thing,
            st.dictionaries(st.sampled_from(ATTRIBUTES), inner, max_size=6),
            st.sets(st.sampled_from([*ATTRIBUTES, "str"]), max_size=3),
        ),
        st.dictionaries(st.sampled_from(ATTRIBUTES), inner, max_size=6),
    ),
    max_leaves=12,
)
contexts = st.dictionaries(st.sampled_from(KEYS), values, max_size=len(KEYS)).flatmap(
    # Half of them name their run, so that the test is not about KeyError alone.
    lambda context: st.sampled_from([context, {"dag": {"dag_id": "d"}, "run_id": "r", **context}])
)
outcomes: st.SearchStrategy[Outcome | None] = st.sampled_from([None, "success", "failure"])
event_types = st.sampled_from([None, "sales.refreshed", *EventType])


@given(contexts, outcomes, event_types)
def test_any_context_gives_an_event_that_can_be_sent_and_read_or_a_reason_why_not(
    context: dict[str, Any], outcome: Outcome | None, event_type: str | None
) -> None:
    try:
        event = lifecycle_event(
            context, event_type, OPTIONS, outcome=outcome, environment="test", emitted_by="callback"
        )
    except (ConfigurationError, KeyError):
        return
    record = encode(event)
    assert decode(record.value, record.headers) == event


@pytest.mark.usefixtures("connection")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contexts,
    st.sampled_from(
        [
            publish_on_success,
            publish_on_failure,
            workflow_event_callback(),
            workflow_event_callback("sales.refreshed", data={"a": 1}),
            WorkflowEventNotifier(event_type="{{ dag_run.state }}", data={"a": "{{ ti.x.y }}"}),
        ]
    ),
)
def test_nothing_at_all_escapes_a_callback(
    context: dict[str, Any], callback: Callable[[dict[str, Any]], None]
) -> None:
    before = set(context)
    callback(context)

    assert set(context) == before
