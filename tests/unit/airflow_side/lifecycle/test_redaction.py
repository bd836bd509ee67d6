"""No secret leaves in an event: not in its data or metadata, nor in a header, a log line or the outbox."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_workflow_events.compat import mask_secret

import pytest
from airflow.sdk import DagRunState, TaskInstanceState
from hypothesis import given
from hypothesis import strategies as st

from airflow_workflow_events import relaying
from airflow_workflow_events.events.cloudevents import CloudEventsMode
from airflow_workflow_events.events.codec import encode, to_json
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.lifecycle.redaction import without_secrets
from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.publisher import Publication
from airflow_workflow_events.settings import Settings
from tests.airflow_names import AIRFLOW
from tests.broker import Broker
from tests.events import make_event
from tests.unit.airflow_side.contexts import dag_context, make_dag, make_run, task_context
from tests.unit.airflow_side.lifecycle.test_translate import event_of
from tests.unit.airflow_side.running import run_task

CANARY = f"canary-{secrets.token_hex(12)}"


def redacted(data: dict[str, Any], **metadata: Any) -> WorkflowEvent:
    event = make_event(payload={"data": data})
    return without_secrets(event.model_copy(update={"metadata": event.metadata.model_copy(update=metadata)}))


@pytest.mark.parametrize(
    ("data", "masked", "path"),
    [
        ({"password": CANARY}, {"password": "***"}, "password"),
        ({"db": {"Login.PWD": CANARY}}, {"db": {"Login.PWD": "***"}}, "db.Login.PWD"),
        ({"x": [{"api_key": CANARY}]}, {"x": [{"api_key": "***"}]}, "x[0].api_key"),
        ({"tokens": [CANARY, 7]}, {"tokens": ["***", 7]}, "tokens[0]"),
        ({"secrets": {"a": {"b": CANARY}}}, {"secrets": {"a": {"b": "***"}}}, "secrets.a.b"),
        ({"password": 1234}, {"password": "***"}, "password"),
        ({"Set-Cookie": CANARY}, {"Set-Cookie": "***"}, "Set-Cookie"),
        ({"dsn": CANARY}, {"dsn": "***"}, "dsn"),  # by Airflow's own list
        ({"url": f"http://me:{CANARY}@x/"}, {"url": "http://me:***@x/"}, "url"),
        ({"sql": f"login password='{CANARY}'"}, {"sql": "login password='***'"}, "sql"),
        ({"json": f'{{"token": "{CANARY}"}}'}, {"json": '{"token": "***"}'}, "json"),
    ],
    ids=lambda value: str(value).replace(CANARY, "..."),
)
def test_a_secret_in_the_data_is_masked_and_its_place_is_named(
    data: dict[str, Any], masked: dict[str, Any], path: str
) -> None:
    event = redacted(data)

    assert event.payload.data == masked
    assert event.metadata.redacted == [f"payload.data.{path}"]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"tokens_used": 12, "token_limit": None, "has_password": True},
        {"rows": [{"id": 1, "name": "x"}], "note": "the key to the warehouse"},
        {"url": "https://example.org/a?b=c", "password": ""},
    ],
    ids=str,
)
def test_what_holds_no_secret_is_the_same_event(data: dict[str, Any]) -> None:
    event = make_event(payload={"data": data})

    assert without_secrets(event) is event


@pytest.mark.parametrize("field", ["environment", "source_instance", "owner", "team", "correlation_id"])
def test_a_known_secret_in_the_metadata_is_masked(field: str) -> None:
    mask_secret(CANARY)
    event = redacted({}, **{field: f"a {CANARY} b"})

    assert getattr(event.metadata, field) == "a *** b"
    assert event.metadata.redacted == [f"metadata.{field}"]


def test_a_known_secret_in_a_tag_or_a_key_is_masked() -> None:
    mask_secret(CANARY)
    event = redacted({CANARY: 1, "***": 2}, tags=["plain", CANARY])

    assert event.metadata.tags == ["plain", "***"]
    assert event.payload.data == {"****": 1, "***": 2}
    assert event.metadata.redacted == ["payload.data", "metadata.tags[1]"]


def test_what_airflows_core_alone_was_told_is_masked_too() -> None:
    from airflow._shared.secrets_masker import mask_secret as mask_in_core

    secret = secrets.token_hex(10)
    mask_in_core(secret)

    assert redacted({"x": f"<{secret}>"}).payload.data == {"x": "<***>"}


def test_what_identifies_an_event_stays_as_it_is() -> None:
    secret = secrets.token_hex(10)
    mask_secret(secret)
    event = make_event(workflow_id=f"dag_{secret}", workflow_run_id=f"token={secret}")

    assert without_secrets(event) is event


def test_many_masked_places_are_counted_rather_than_all_named() -> None:
    event = redacted({"rows": [{"password": CANARY} for _ in range(1_000)]})

    assert event.metadata.redacted is not None
    assert len(event.metadata.redacted) == 51
    assert event.metadata.redacted[-1] == "and 950 more"
    assert CANARY not in to_json(event).decode()


def test_masking_twice_changes_nothing_more() -> None:
    once = redacted({"password": CANARY, "sql": f"password={CANARY}", "url": f"x://u:{CANARY}@h"})

    assert without_secrets(once) is once


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([CANARY, f"a{CANARY}b"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just(CANARY), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_known_secret_is_nowhere_in_an_event_whatever_its_shape(data: dict[str, Any]) -> None:
    mask_secret(CANARY)
    record = encode(without_secrets(make_event(payload={"data": data})), CloudEventsMode.BINARY)

    assert CANARY.encode() not in record.value
    assert CANARY not in str(record.headers)


def test_a_secret_leaves_neither_in_a_record_a_header_a_log_nor_the_outbox(
    tmp_path: Path,
    connection: str,
    embedded_broker: Broker,
    event_topic: str,
    set_options: Callable[..., None],
    log_of: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_options(outbox_url=f"sqlite:///{tmp_path}/outbox.db", conf_keys="db, query")
    outbox = relaying.outbox_of(Settings.load())
    assert outbox is not None
    outbox.beat("host:1", "host", 1)  # so that everything stays in the outbox for a look
    conf = {"db": {"password": CANARY}, "query": f"https://me:{CANARY}@warehouse/", "password": CANARY}
    dag = make_dag(params={"password": CANARY, "url": f"https://me:{CANARY}@x"})
    failure = RuntimeError(f"login failed: postgresql://me:{CANARY}@warehouse (password={CANARY})")
    data = {"login": {"password": CANARY}, "command": f"psql --password {CANARY}"}
    note = {"note": f"token: {CANARY}"} if AIRFLOW >= (3, 2) else {}  # which tasks are told of since then
    run = make_run(conf=conf, state=DagRunState.FAILED, **note)
    published = [
        Publication(emitted_by="callback", data=data).publish(dag_context("task_failure", run=run, dag=dag)),
        Publication(emitted_by="callback", data=data).publish(
            task_context(TaskInstanceState.FAILED, exception=failure, run=run)
        ),
    ]
    assert published == [True, True]
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"warehouse" in files, "the events are there"
    assert CANARY.encode() not in files

    operator = PublishWorkflowEventOperator(
        task_id="publish", event_type="db.moved", data=data, dag=make_dag()
    )
    run_task(operator)
    relay = relaying.background_relay(outbox)
    relay.start()
    assert relay.stop(20)
    messages = embedded_broker.messages(event_topic, 3)
    for message in messages:
        assert CANARY.encode() not in (message.value() or b"")
        assert CANARY not in str(message.headers())
        assert b'"redacted":["payload.data.' in (message.value() or b"")
    ours = [record for record in caplog.records if record.name.startswith("airflow_workflow_events")]
    assert "is in the outbox" in log_of("publisher")
    assert CANARY not in "".join(map(logging.Formatter("%(message)s %(exc_text)s").format, ours))


def test_a_value_that_json_cannot_carry_is_refused_without_being_shown() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as refused:
        event_of(dag_context(), data={"password": CANARY.encode()})

    assert CANARY not in str(refused.value)
    assert "payload.data.password" in str(refused.value)
