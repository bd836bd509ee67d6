"""The one way in for who must never fail or be late: it never raises, keeps its bound, logs and counts."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from airflow.sdk import DagRunState
from confluent_kafka import KafkaError as Code

from airflow_workflow_events import ConfigurationError, EmbeddedBroker, WorkflowEvent
from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from airflow_workflow_events.metrics import FAILED as FAILED_METRIC
from airflow_workflow_events.metrics import PUBLISHED as PUBLISHED_METRIC
from airflow_workflow_events.publisher import Publication
from tests.airflow_metrics import metrics_go_to
from tests.broker import Broker
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import DAG_ID, RUN_ID, dag_context, make_run, minimal_context
from tests.unit.airflow_side.lifecycle.test_translate import event_of

Counts = Counter[tuple[str, str]]
LogOf = Callable[[str], str]
Published = Callable[..., list[WorkflowEvent]]

# What a test's bound may be missed by on a machine that is busy with other tests.
MARGIN_SECONDS = 3

FAILED = {(FAILED_METRIC, "callback"): 1}

#: How the log names what could not be built: by its run.
SUBJECT = f"ERROR an event of {DAG_ID}/{RUN_ID}"


def callback(**options: Any) -> Publication:
    return Publication(emitted_by="callback", **options)


@pytest.fixture
def silent_broker() -> Iterator[int]:
    """The port of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_event_is_published_logged_by_its_id_and_counted(
    connection: str, published: Published, counters: Counts, log_of: LogOf
) -> None:
    assert callback().publish(dag_context()) is True

    (event,) = published()
    assert event.event_id == event_of(dag_context()).event_id
    assert event.metadata.emitted_by == "callback"
    assert f"INFO event {event.event_id} (workflow.completed of {event.ordering_key}) published to" in log_of(
        "publisher"
    )
    assert counters == {(PUBLISHED_METRIC, "callback"): 1}


def test_options_of_the_publication_win_over_those_of_connection_and_configuration(
    connections: Connections, embedded_broker: Broker, event_topic: str, published: Published
) -> None:
    connections.add(
        "another",
        extra={
            "bootstrap.servers": embedded_broker.bootstrap_servers,
            "topic": "another",
            "environment": "another",
        },
    )
    options = {"conn_id": "another", "topic": event_topic, "environment": "prod"}

    assert callback(event_type="sales.refreshed", data={"rows": [1]}, **options).publish(dag_context())
    (event,) = published()
    assert (event.event_type, event.metadata.environment) == ("sales.refreshed", "prod")
    assert event.payload.data["rows"] == [1]


def test_the_connection_is_the_one_in_the_options_unless_named(
    connections: Connections,
    embedded_broker: Broker,
    event_topic: str,
    set_options: Callable[..., None],
    published: Published,
) -> None:
    set_options(conn_id="from_options", environment="from-option")
    connections.add(
        "from_options", extra={"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": event_topic}
    )

    assert callback().publish(dag_context())
    assert published()[0].metadata.environment == "from-option"


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_an_option_that_cannot_be_used_is_told_and_costs_no_event(
    connection: str, set_options: Callable[..., None], counters: Counts, log_of: LogOf, seconds: str
) -> None:
    set_options(callback_timeout_seconds=seconds)

    assert callback().publish(dag_context()) is True
    assert f"[workflow_events] callback_timeout_seconds is '{seconds}'" in log_of("publisher")
    assert counters == {(PUBLISHED_METRIC, "callback"): 1}


def test_a_host_without_threads_fails_nothing(
    connection: str, counters: Counts, log_of: LogOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert callback().publish(dag_context()) is False
    assert "can't start new thread" in log_of("publisher")
    assert counters == FAILED


def test_a_missing_connection_fails_nothing(counters: Counts, log_of: LogOf) -> None:
    assert callback(conn_id="nowhere").publish(dag_context()) is False
    assert "was not published by the callback: AirflowNotFoundException" in log_of("publisher")
    assert "nowhere" in log_of("publisher")
    assert counters == FAILED


def test_a_connection_that_cannot_be_used_fails_nothing(
    connections: Connections, counters: Counts, log_of: LogOf
) -> None:
    connections.add(host="kafka", extra={"acks": "2"})

    assert callback().publish(dag_context()) is False
    assert f"{SUBJECT} was not published by the callback" in log_of("publisher")
    assert "ConfigurationError: connection 'workflow_events_default': acks is '2'" in log_of("publisher")
    assert counters == FAILED


@pytest.mark.parametrize(
    ("context", "options", "reason"),
    [
        (minimal_context(None), {}, "cannot tell from the context what happened"),
        ({"reason": "success"}, {}, "the context has no DAG id or run id, only: reason"),
        (minimal_context(), {"data": {"a": float("nan")}}, "payload.data.a"),
        (minimal_context(), {"data": {"a": b"x"}}, "payload.data.a"),
    ],
)
def test_an_event_that_cannot_be_built_fails_nothing(
    connection: str,
    published: Published,
    counters: Counts,
    log_of: LogOf,
    context: Mapping[str, Any],
    options: dict[str, Any],
    reason: str,
) -> None:
    assert callback(**options).publish(context) is False
    assert "was not published by the callback" in log_of("publisher")
    assert reason in log_of("publisher")
    assert counters == FAILED
    assert published(0) == []


def test_what_ends_the_attempts_thread_is_the_reason_in_the_log(
    connection: str, counters: Counts, log_of: LogOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("airflow_workflow_events.publisher.lifecycle_event", interrupt)

    assert not callback().publish(dag_context())
    assert "was not published by the callback: KeyboardInterrupt" in log_of("publisher")
    assert "gave up" not in log_of("publisher")


def test_a_broker_that_refuses_fails_nothing(
    connections: Connections, counters: Counts, log_of: LogOf
) -> None:
    with EmbeddedBroker(topics={"workflow-events": 1}) as broker:
        connections.add(extra={"bootstrap.servers": broker.bootstrap_servers})
        broker.fail_produce_requests([Code.TOPIC_AUTHORIZATION_FAILED])

        assert callback().publish(dag_context()) is False
    assert f"ERROR event {event_of(dag_context()).event_id}" in log_of("publisher")
    assert "KafkaAuthorizationError" in log_of("publisher")
    assert counters == FAILED


@pytest.mark.parametrize("kind", ["gone", "silent"])
def test_a_broker_that_does_not_answer_costs_no_more_than_the_bound(
    connections: Connections,
    silent_broker: int,
    counters: Counts,
    log_of: LogOf,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    connections.add(host="127.0.0.1", port=1 if kind == "gone" else silent_broker)
    started = time.monotonic()

    assert callback(timeout_seconds=0.5).publish(dag_context()) is False
    assert time.monotonic() - started < 0.5 + MARGIN_SECONDS
    assert f"ERROR event {event_of(dag_context()).event_id}" in log_of("publisher")
    assert "was not published by the callback" in log_of("publisher")
    assert "it was not sent" in log_of("publisher")
    assert "may" not in log_of("publisher")
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(told) == 1, "one line about it, from whoever publishes"
    assert counters == FAILED


def test_a_secrets_backend_that_hangs_costs_no_more_than_the_bound(
    vault_that_hangs: threading.Event, set_options: Callable[..., None], counters: Counts, log_of: LogOf
) -> None:
    set_options(callback_timeout_seconds="0.5")
    started = time.monotonic()

    assert callback().publish(dag_context()) is False
    assert vault_that_hangs.wait(30)
    assert 0.5 <= time.monotonic() - started < 0.5 + MARGIN_SECONDS
    assert f"{SUBJECT} was not published by the callback: gave up after 0.5 s" in log_of("publisher")
    assert counters == FAILED


def test_an_attempt_that_hangs_does_not_keep_the_process_alive() -> None:
    from tests.unit.airflow_side.processes import run_program

    output = run_program(
        "import time, atexit, airflow\n"
        "from tests.unit.airflow_side.secrets_backends import BlockingBackend\n"
        "from airflow_workflow_events.callbacks import publish_on_success\n"
        "started = time.monotonic()\n"
        "publish_on_success({'dag': {'dag_id': 'd'}, 'run_id': 'r', 'reason': 'success'})\n"
        "assert BlockingBackend.asked.wait(30)\n"
        "atexit.register(lambda: print('ended', time.monotonic() - started < 60))\n",
        {
            "AIRFLOW__SECRETS__BACKEND": "tests.unit.airflow_side.secrets_backends.BlockingBackend",
            "AIRFLOW__WORKFLOW_EVENTS__CALLBACK_TIMEOUT_SECONDS": "0.2",
        },
    )
    assert output.splitlines()[-1] == "ended True"


def test_metrics_that_are_broken_fail_nothing(connection: str, published: Published) -> None:
    def broken() -> Any:
        raise OSError("no route to statsd")

    with metrics_go_to(broken):
        assert callback().publish(dag_context()) is True
        assert callback(conn_id="nowhere").publish(dag_context()) is False
    assert len(published()) == 1


def test_a_context_is_left_as_it_was(connection: str) -> None:
    context = dag_context()
    before = dict(context)
    callback(data={"a": 1}).publish(context)

    assert context.keys() == before.keys()
    assert all(context[key] is before[key] for key in before)


@pytest.mark.parametrize("name", LIFECYCLE_FIELDS)
def test_data_under_a_name_of_the_lifecycles_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        callback(data={name: 1})


@pytest.mark.parametrize("timeout_seconds", [0, -1, float("nan")])
def test_a_bound_that_is_none_is_refused(timeout_seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout_seconds"):
        callback(timeout_seconds=timeout_seconds)


def test_the_ids_of_callback_and_repeat_are_one(connection: str, published: Published) -> None:
    context = dag_context("timed_out", make_run(state=DagRunState.FAILED))
    for _ in range(2):
        assert callback().publish(context)

    assert len({event.event_id for event in published(2)}) == 1
