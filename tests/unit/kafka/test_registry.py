"""Framing for a schema registry, by confluent-kafka's own serializer, client and mock registry.

Where a registry must misbehave, it is a small HTTP server that does.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka.schema_registry.error import OAuthTokenError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import given

from airflow_workflow_events import ConfigurationError, EventSerializationError, KafkaError, WorkflowEvent
from airflow_workflow_events.errors import (
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    WorkflowEventsError,
)
from airflow_workflow_events.events import to_json
from airflow_workflow_events.events.framing import strip_confluent_frame
from airflow_workflow_events.events.schema import SCHEMA_PATH
from airflow_workflow_events.kafka.registry import RegistryValueSerializer
from tests.events import make_event
from tests.property.strategies import events
from tests.subprocesses import output_of

CANARY = "canary-7f3a"
TOPIC = "workflow-events"


@pytest.fixture
def serializer() -> RegistryValueSerializer:
    return RegistryValueSerializer({"url": "mock://tests"})


# What is written


def test_the_schema_that_ships_with_the_package_is_registered_for_the_topic(
    serializer: RegistryValueSerializer,
) -> None:
    schema_id = serializer.register(TOPIC)

    registered = serializer.client.get_latest_version(f"{TOPIC}-value")
    assert registered.schema_id == schema_id
    assert registered.schema.schema_type == "JSON"
    assert registered.schema.schema_str == SCHEMA_PATH.read_text("utf-8")
    assert serializer.client.get_subjects() == [f"{TOPIC}-value"]


def test_a_value_is_framed_and_its_json_is_the_same(serializer: RegistryValueSerializer) -> None:
    value = to_json(make_event(payload={"data": {"a": [1, 1.0, None, "ü", 1e300]}}))

    framed = serializer(value, TOPIC)

    assert framed[:5] == b"\0" + serializer.register(TOPIC).to_bytes(4, "big")
    assert framed[5:] == value


SHARED = RegistryValueSerializer({"url": "mock://property"})


@given(events())
def test_the_json_of_any_event_is_unchanged_behind_its_frame(event: WorkflowEvent) -> None:
    value = to_json(event)

    assert strip_confluent_frame(SHARED(value, TOPIC)) == value


def test_confluents_own_deserializer_reads_it_and_checks_it_against_the_schema(
    serializer: RegistryValueSerializer,
) -> None:
    event = make_event(payload={"data": {"rows": 3}})
    deserializer = JSONDeserializer(None, schema_registry_client=serializer.client)

    document = deserializer(
        serializer(to_json(event), TOPIC), SerializationContext(TOPIC, MessageField.VALUE)
    )

    assert document == json.loads(to_json(event))


def test_a_schema_that_is_not_registered_is_refused_where_registering_it_is_off() -> None:
    serializer = RegistryValueSerializer({"url": "mock://tests"}, {"auto.register.schemas": False})

    with pytest.raises(ConfigurationError, match="has no such schema for topic workflow-events"):
        serializer(to_json(make_event()), TOPIC)


def test_an_event_can_be_checked_against_the_schema_once_more() -> None:
    serializer = RegistryValueSerializer({"url": "mock://tests"}, {"validate": True})

    assert serializer(to_json(make_event()), TOPIC)
    with pytest.raises(EventSerializationError, match="'event_id' is a required property"):
        serializer(b'{"timestamp": "2026-11-23T02:44:35Z"}', TOPIC)


# When the registry is in trouble


@contextmanager
def registry_that_answers(status: int, message: str) -> Iterator[str]:
    """A registry that has one answer to everything; gives its ``host:port``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error_code": status, "message": message}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any, **options: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


REFUSALS: list[tuple[int, type[WorkflowEventsError], str, bool]] = [
    (401, KafkaAuthenticationError, "refused the credentials", False),
    (403, KafkaAuthorizationError, "does not permit it for topic workflow-events", False),
    (409, ConfigurationError, "set the subject's compatibility to FORWARD", False),
    (422, ConfigurationError, "refused the schema for topic workflow-events", False),
    (500, KafkaConnectionError, "has trouble", True),
    (503, KafkaConnectionError, "has trouble", True),
]


@pytest.mark.parametrize(("status", "kind", "reason", "retriable"), REFUSALS, ids=lambda value: str(value))
def test_a_refusal_is_an_error_that_says_what_to_do(
    status: int, kind: type[WorkflowEventsError], reason: str, retriable: bool
) -> None:
    with registry_that_answers(status, f"no, {CANARY}") as address:
        serializer = RegistryValueSerializer(
            {"url": f"http://{address}", "basic.auth.user.info": f"user:{CANARY}", "max.retries": 0}
        )
        with pytest.raises(kind, match=reason) as raised:
            serializer.register(TOPIC)

    assert address in str(raised.value)
    assert CANARY not in str(raised.value)
    assert raised.value.retriable is retriable


def test_a_registry_that_cannot_be_reached_is_an_error_worth_another_try() -> None:
    serializer = RegistryValueSerializer({"url": f"http://user:{CANARY}@127.0.0.1:1", "max.retries": 0})

    with pytest.raises(KafkaConnectionError, match=r"at http://127\.0\.0\.1:1 did not answer") as raised:
        serializer(to_json(make_event()), TOPIC)

    assert CANARY not in str(raised.value) + repr(serializer)
    assert raised.value.retriable


@pytest.fixture
def late_at_first(serializer: RegistryValueSerializer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the mock registry not answer the first time."""
    register = serializer.client.register_schema_full_response
    late = iter([TimeoutError("late")])

    def register_late(*args: Any, **options: Any) -> Any:
        for error in late:
            raise error
        return register(*args, **options)

    monkeypatch.setattr(serializer.client, "register_schema_full_response", register_late)


@pytest.mark.usefixtures("late_at_first")
def test_other_topics_are_served_while_the_registry_is_left_alone_for_one(
    serializer: RegistryValueSerializer,
) -> None:
    value = to_json(make_event())
    with pytest.raises(KafkaConnectionError):
        serializer(value, TOPIC)

    assert serializer(value, "other")
    with pytest.raises(KafkaConnectionError):
        serializer(value, TOPIC)


@pytest.mark.usefixtures("late_at_first")
def test_the_registry_is_asked_again_after_a_pause(
    serializer: RegistryValueSerializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_workflow_events.kafka.registry._PAUSE_SECONDS", 0)
    value = to_json(make_event())
    with pytest.raises(KafkaConnectionError):
        serializer(value, TOPIC)

    assert serializer(value, TOPIC)


@pytest.mark.usefixtures("late_at_first")
def test_registering_asks_at_once_and_ends_the_pause(serializer: RegistryValueSerializer) -> None:
    value = to_json(make_event())
    with pytest.raises(KafkaConnectionError):
        serializer(value, TOPIC)

    assert serializer.register(TOPIC) == 1
    assert serializer(value, TOPIC)


@pytest.mark.parametrize(
    ("trouble", "kind", "reason"),
    [
        (LookupError("what"), KafkaError, "could not be asked: LookupError: what"),
        (OAuthTokenError("no", 400, CANARY), KafkaAuthenticationError, "OAuth token was not to be had"),
    ],
    ids=["of another kind", "with its token"],
)
def test_trouble_of_the_client_is_a_kafka_error(
    trouble: Exception,
    kind: type[KafkaError],
    reason: str,
    serializer: RegistryValueSerializer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise trouble

    monkeypatch.setattr(serializer.client, "register_schema_full_response", fail)
    with pytest.raises(kind, match=reason) as raised:
        serializer.register(TOPIC)

    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": f"ftp://user:{CANARY}@registry"},
        {"url": "http://registry", "basic.auth.user.info": CANARY},
        {"url": f"http://user:{CANARY}@registry", "basic.auth.user.info": f"user:{CANARY}"},
        {"url": "http://registry", "ssl.key.password": CANARY},
        {"url": "http://registry", "ssl.ca.location": "/nowhere.pem"},
        {"url": "http://registry", "no.such.option": 1},
    ],
    ids=lambda options: " ".join(options) or "none",
)
def test_wrong_options_are_refused_without_showing_secrets(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="refuses its options") as raised:
        RegistryValueSerializer(options)

    assert CANARY not in str(raised.value)


def test_a_wrong_option_of_the_serializer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.option"):
        RegistryValueSerializer({"url": "mock://tests"}, {"no.such.option": 1})


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry.json_schema", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'airflow-workflow-events\[schema-registry\]'"):
        RegistryValueSerializer({"url": "mock://tests"})


FORK = """
import os
from airflow_workflow_events.kafka.registry import RegistryValueSerializer
from airflow_workflow_events.events import to_json
from tests.events import make_event

serializer = RegistryValueSerializer({"url": "mock://tests"})
value = to_json(make_event())
framed, inherited = serializer(value, "workflow-events"), serializer.client
child = os.fork()
if child == 0:
    print("framed", serializer(value, "workflow-events") == framed, flush=True)
    print("inherited", serializer.client is inherited, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("kept", serializer.client is inherited)
"""


def test_a_child_of_a_fork_has_a_client_of_its_own() -> None:
    # In a process without other threads, which is the only one that may be forked without a warning.
    assert output_of(sys.executable, "-c", FORK).split() == [
        *("framed", "True"),
        *("inherited", "False"),
        *("kept", "True"),
    ]
