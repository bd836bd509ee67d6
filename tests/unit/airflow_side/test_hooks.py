"""The hook: from a connection's form to a producer."""

from __future__ import annotations

import json
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import pytest
from airflow.exceptions import AirflowOptionalProviderFeatureException
from airflow.providers.common.compat.sdk import AirflowNotFoundException, redact

from airflow_workflow_events import ConfigurationError, EmbeddedBroker
from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.provider_info import CONNECTION_FIELDS
from tests import broker as brokers
from tests.airflow_names import clear_secrets_backends_cache, since_airflow, since_kafka_provider
from tests.broker import Broker
from tests.brokers.certificates import make_certificates
from tests.brokers.jvm import KafkaCluster, SecureListener
from tests.events import make_event
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.secrets_backends import CountingBackend

Configuration = Callable[..., dict[str, Any]]


def oauth_token(_config: str) -> tuple[str, float]:
    """A token callback that a connection names by its dotted path."""
    return "token", 4_000_000_000.0


MSK = since_kafka_provider("1.15.1", "gets no tokens for Amazon MSK")
OAUTH_CALLBACK = f"{__name__}.oauth_token"


@pytest.fixture
def configuration(connections: Connections) -> Configuration:
    """``configuration(host=..., extra={...})``: librdkafka's configuration for such a connection."""

    def configuration(**connection: Any) -> dict[str, Any]:
        hook = WorkflowEventHook(connections.add(**connection))
        with hook.get_producer(connect=False) as producer:
            return producer.client_config

    return configuration


@pytest.fixture
def lookups(set_options: Callable[..., None]) -> Iterator[list[str]]:
    """The connections that Airflow looked up."""
    set_options("secrets", backend=f"{CountingBackend.__module__}.CountingBackend")
    clear_secrets_backends_cache()
    CountingBackend.asked.clear()
    yield CountingBackend.asked
    clear_secrets_backends_cache()


def test_a_form_filled_in_becomes_librdkafkas_configuration(configuration: Configuration) -> None:
    config = configuration(
        host="kafka-1",
        port=9093,
        extra={
            "bootstrap.servers": "kafka-2:9093,kafka-3:9093",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "etl",
            "sasl.password": "sesame-open",
            "acks": "all",
            "delivery.timeout.ms": 60_000,
            "request.timeout.ms": 5_000,
        },
    )

    assert (
        config
        | {
            "bootstrap.servers": "kafka-1:9093,kafka-2:9093,kafka-3:9093",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "etl",
            "sasl.password": "sesame-open",
            "acks": "all",
            "message.timeout.ms": 60_000,
            "request.timeout.ms": 5_000,
            "client.id": "airflow-workflow-events",
        }
        == config
    )


def test_a_form_left_blank_but_for_the_host_is_the_producers_default(configuration: Configuration) -> None:
    blank = configuration(host="kafka", extra=dict.fromkeys(CONNECTION_FIELDS))

    assert blank == configuration(host="kafka", port=9092, extra={})
    assert blank["bootstrap.servers"] == "kafka:9092"
    assert None not in blank.values()


def test_an_empty_text_counts_as_blank(configuration: Configuration) -> None:
    assert "sasl.username" not in configuration(
        host="kafka", extra={"sasl.username": "", "config": {"a": ""}}
    )


def test_the_fields_of_the_hook_do_not_reach_librdkafka(configuration: Configuration) -> None:
    config = configuration(
        host="kafka",
        extra={
            "topic": "a",
            "environment": "prod",
            "cloudevents": "off",
            "connect.timeout.ms": 1000,
            "config": {},
        },
    )

    assert config == configuration(host="kafka")


@pytest.mark.parametrize(
    ("host", "port", "servers"),
    [
        ("kafka:9093", None, "kafka:9093"),
        ("kafka:9093", 9092, "kafka:9093"),
        ("kafka-1, kafka-2:9094", 9093, "kafka-1:9093,kafka-2:9094"),
        ("::1", 9093, "[::1]:9093"),
        ("[::1]", None, "[::1]:9092"),
        ("[::1]:9093", None, "[::1]:9093"),
        ("PLAINTEXT://kafka:9093", None, "kafka:9093"),
        ("plaintext://kafka", 9093, "kafka:9093"),
        ("kafka://kafka-1:9093, kafka://[::1]", None, "kafka-1:9093,[::1]:9092"),
    ],
)
def test_a_scheme_a_port_several_hosts_or_an_ipv6_address_in_the_host_field_are_understood(
    configuration: Configuration, host: str, port: int | None, servers: str
) -> None:
    assert configuration(host=host, port=port)["bootstrap.servers"] == servers


@pytest.mark.parametrize(
    ("extra", "servers"),
    [
        ({"bootstrap.servers": "a:1, b:2 ,,kafka:9092"}, "kafka:9092,a:1,b:2"),
        ({"bootstrap.servers": "kafka:9092"}, "kafka:9092"),
        ({"metadata.broker.list": "a:1"}, "kafka:9092,a:1"),
        ({"config": {"bootstrap.servers": "a:1"}}, "kafka:9092,a:1"),
    ],
)
def test_host_and_port_come_first_and_no_broker_twice(
    configuration: Configuration, extra: dict[str, Any], servers: str
) -> None:
    assert configuration(host="kafka", extra=extra)["bootstrap.servers"] == servers


def test_the_object_of_librdkafka_options_wins_over_the_fields(configuration: Configuration) -> None:
    config = configuration(
        host="kafka",
        extra={
            "acks": "1",
            "request.timeout.ms": 5_000,
            "config": {"request.required.acks": -1, "request.timeout.ms": 7_000, "compression.type": "zstd"},
        },
    )

    assert (config["acks"], config["request.timeout.ms"], config["compression.type"]) == (
        "all",
        7_000,
        "zstd",
    )


def test_an_override_wins_over_the_connection(connections: Connections) -> None:
    hook = WorkflowEventHook(
        connections.add(host="kafka", extra={"topic": "theirs", "config": {"linger.ms": 5}})
    )

    with hook.get_producer(connect=False, topic="mine", config={"linger.ms": 9}) as producer:
        assert producer.topic == "mine"
        assert producer.client_config["linger.ms"] == 9


def test_an_option_may_go_by_any_of_librdkafkas_names(configuration: Configuration) -> None:
    config = configuration(
        host="kafka",
        extra={
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "u",
            "sasl.password": "sesame",
        },
    )

    assert config["sasl.mechanism"] == "PLAIN"
    assert "sasl.mechanisms" not in config


def test_a_stock_kafka_connection_works_and_its_consumer_options_are_left_out(
    connections: Connections, embedded_broker: Broker, event_topic: str
) -> None:
    connections.add(
        "kafka_default",
        conn_type="kafka",
        extra={
            "bootstrap.servers": embedded_broker.bootstrap_servers,
            "group.id": "etl",
            "group.instance.id": "etl-1",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": True,
        },
    )

    with WorkflowEventHook("kafka_default").get_producer(topic=event_topic) as producer:
        assert producer.publish_event(make_event())
        assert not producer.client_config.keys() & {
            "group.id",
            "group.instance.id",
            "auto.offset.reset",
            "enable.auto.commit",
        }


@pytest.mark.parametrize("extra", [{}, {"bootstrap.servers": None}, {"bootstrap.servers": " , "}])
def test_a_connection_without_a_broker_is_refused_by_name(
    configuration: Configuration, extra: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=r"connection 'workflow_events_default'.*"):
        configuration(extra=extra)


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ({"acks": "2"}, "acks is '2'"),
        ({"cloudevents": "sometimes"}, "cloudevents is 'sometimes'"),
        ({"topic": "not legal"}, "'not legal' is not a legal Kafka topic"),
        ({"connect.timeout.ms": "soon"}, "connect.timeout.ms is 'soon'"),
        ({"connect.timeout.ms": True}, "connect.timeout.ms is True"),
        (
            {"bootstrap.servers": "SSL://kafka:9093"},
            "a broker is at SSL:// but security.protocol is PLAINTEXT",
        ),
        ({"connect.timeout.ms": 0}, "connect_timeout_ms is 0"),
        ({"delivery.timeout.ms": "soon"}, "message.timeout.ms"),
        ({"config": ["linger.ms"]}, "config must be a JSON object"),
        ({"no.such.option": 1}, "no.such.option"),
        ({"security.protocol": "TLS"}, "security_protocol is 'TLS'"),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"},
            "needs sasl.username and sasl.password",
        ),
        ({"ssl.key.pem": "nonsense", "security.protocol": "SSL"}, "librdkafka refuses"),
    ],
)
def test_a_wrong_field_is_refused_naming_the_connection_and_no_secret(
    configuration: Configuration, extra: dict[str, Any], complaint: str
) -> None:
    secret = secrets.token_hex(8)
    with pytest.raises(ConfigurationError) as caught:
        configuration(host="kafka", extra={"ssl.key.password": secret, **extra})

    assert str(caught.value).startswith("connection 'workflow_events_default': ")
    assert complaint in str(caught.value)
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value.__cause__)


LOGIN = {"login": "etl", "password": "sesame-open"}


def test_the_login_of_the_connection_itself_is_used_where_the_extra_names_none(
    configuration: Configuration,
) -> None:
    sasl = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
    own = configuration(host="kafka", extra=sasl, **LOGIN)
    extras = configuration(
        host="kafka", extra={**sasl, "sasl.username": "u", "config": {"sasl.password": "other"}}, **LOGIN
    )

    assert (own["sasl.username"], own["sasl.password"]) == ("etl", "sesame-open")
    assert (extras["sasl.username"], extras["sasl.password"]) == ("u", "other")


def test_the_login_of_the_connection_is_refused_where_it_would_be_ignored(
    configuration: Configuration,
) -> None:
    with pytest.raises(ConfigurationError, match="SASL is configured but security_protocol is PLAINTEXT"):
        configuration(host="kafka", **LOGIN)


@since_airflow(3, 2, "makes no connection of such an extra: it is not found")
@pytest.mark.parametrize("extra", ["[1, 2]", "7", '"text"'])
def test_an_extra_that_is_no_object_is_refused_with_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({"conn_type": "kafka", "host": "h", "extra": extra}))
    hook = WorkflowEventHook("odd")

    with pytest.raises(ConfigurationError, match=r"^connection 'odd': its extra is a JSON .*: use an object"):
        hook.get_producer(connect=False)
    ok, message = hook.test_connection()
    assert not ok
    assert "use an object" in message


def test_a_connection_that_is_not_there_is_airflows_own_error() -> None:
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        WorkflowEventHook("nowhere").get_producer()


def test_the_connection_is_looked_up_once(
    connections: Connections, embedded_broker: Broker, lookups: list[str]
) -> None:
    hook = WorkflowEventHook(
        connections.add(extra={"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": "a"})
    )
    assert (hook.topic, hook.environment) == ("a", "default")
    for _ in range(2):
        hook.get_producer().close()

    assert lookups == ["workflow_events_default"]


def test_making_a_producer_leaves_the_connection_as_it_was(connections: Connections) -> None:
    extra = {"topic": "a", "bootstrap.servers": "b:1", "blank": None}
    hook = WorkflowEventHook(connections.add(host="kafka", extra=extra))
    hook.get_producer(connect=False).close()

    assert hook.connection.extra_dejson == extra
    assert hook.get_connection("workflow_events_default").extra_dejson == extra


@pytest.mark.parametrize(
    ("name", "others"),
    [
        (
            "sasl.password",
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u"},
        ),
        ("ssl.key.password", {}),
        ("ssl.keystore.password", {}),
        (
            "sasl.oauthbearer.client.secret",
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"},
        ),
    ],
)
def test_a_secret_of_the_connection_is_masked_in_airflows_logs(
    connections: Connections, name: str, others: dict[str, str]
) -> None:
    secret = f"{secrets.token_hex(4)}/+={secrets.token_hex(4)}"
    hook = WorkflowEventHook(connections.add(host="kafka", extra={name: secret, **others}))
    hook.get_producer(connect=False).close()

    assert redact(f"logging in with {secret}!") == "logging in with ***!"


def test_a_key_in_the_connection_itself_is_masked_in_airflows_logs(
    connections: Connections, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Airflow masks by the name of a key, and ssl.key.pem is none it knows.
    certificates = make_certificates(tmp_path_factory.mktemp("tls"))
    key = certificates.client_key.read_text()
    certificate = certificates.client_certificate.read_text()
    hook = WorkflowEventHook(
        connections.add(
            host="kafka",
            extra={"security.protocol": "SSL", "ssl.key.pem": key, "ssl.certificate.pem": certificate},
        )
    )
    hook.get_producer(connect=False).close()

    assert redact(f"the key is {key}") == "the key is ***"


def test_a_callback_is_resolved_only_if_the_kafka_providers_allow_list_names_it(
    configuration: Configuration, set_options: Callable[..., None]
) -> None:
    login = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "oauth_cb": OAUTH_CALLBACK,
    }

    by_name = "^connection 'workflow_events_default': .*"
    with pytest.raises(ConfigurationError, match=f"{by_name}callback_allowlist is empty"):
        configuration(host="kafka", extra=login)
    set_options("apache_kafka", callback_allowlist="a.module.another")
    with pytest.raises(ConfigurationError, match=f"{by_name}not in the"):
        configuration(host="kafka", extra=login)
    set_options("apache_kafka", callback_allowlist=f"a.module.another, {OAUTH_CALLBACK}")
    assert configuration(host="kafka", extra=login)["oauth_cb"]("") == oauth_token("")


@MSK
@pytest.mark.parametrize("place", ["host", "extra"])
def test_amazon_msk_with_oauthbearer_gets_its_tokens_by_the_kafka_providers_code(
    configuration: Configuration, place: str
) -> None:
    host = "b-1.demo.abcde1.c2.kafka.us-east-1.amazonaws.com"
    address: dict[str, Any] = (
        {"host": host, "port": 9098} if place == "host" else {"extra": {"bootstrap.servers": f"{host}:9098"}}
    )
    address["extra"] = {
        **address.get("extra", {}),
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
    }

    with pytest.raises(AirflowOptionalProviderFeatureException, match="aws_msk_iam_sasl_signer"):
        configuration(**address)


def test_topic_and_environment_are_the_connections_or_else_the_options(
    connections: Connections, set_options: Callable[..., None]
) -> None:
    set_options(topic="from-option", environment="staging")
    plain = WorkflowEventHook(connections.add("plain", host="kafka"))
    filled = WorkflowEventHook(
        connections.add("filled", host="kafka", extra={"topic": "own", "environment": "prod"})
    )

    assert (plain.topic, plain.environment) == ("from-option", "staging")
    assert (filled.topic, filled.environment) == ("own", "prod")


def test_the_layout_of_events_is_the_connections(
    connections: Connections, embedded_broker: Broker, event_topic: str
) -> None:
    hook = WorkflowEventHook(
        connections.add(
            extra={"bootstrap.servers": embedded_broker.bootstrap_servers, "cloudevents": "structured"}
        )
    )
    with hook.get_producer() as producer:
        assert producer.publish_event(make_event(), event_topic)

    (message,) = embedded_broker.messages(event_topic, 1)
    assert json.loads(message.value() or b"")["specversion"] == "1.0"


def test_no_broker_that_answers_is_a_connection_error_within_the_connections_bound(
    connections: Connections,
) -> None:
    hook = WorkflowEventHook(connections.add(host="127.0.0.1", port=1, extra={"connect.timeout.ms": "200"}))

    with pytest.raises(KafkaConnectionError, match=r"within 0\.2 s"):
        hook.get_producer()


def test_older_airflows_get_the_form_from_the_hook_itself() -> None:
    assert WorkflowEventHook.get_ui_field_behaviour() == {
        "hidden_fields": ["schema", "login", "password"],
        "relabeling": {"host": "Broker host", "port": "Broker port"},
        "placeholders": {"host": "kafka.example.com", "port": "9092"},
    }


@pytest.mark.real_kafka
def test_the_connection_test_succeeds_where_events_could_be_published_and_publishes_none(
    connections: Connections, real_broker: Broker
) -> None:
    topic = f"events-{uuid.uuid4()}"
    real_broker.create_topic(topic)
    hook = WorkflowEventHook(
        connections.add(extra={"bootstrap.servers": real_broker.bootstrap_servers, "topic": topic})
    )

    assert hook.test_connection() == (
        True,
        f"Connected to Kafka; events can be published to topic {topic}.",
    )
    assert real_broker.messages(topic, 0) == []


def test_the_connection_test_says_where_a_broker_does_not_tell_permissions(
    connection: str, event_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_workflow_events.hooks._TEST_TIMEOUT_MS", 500)

    assert WorkflowEventHook(connection).test_connection() == (
        True,
        f"Connected to Kafka; topic {event_topic} exists, its permissions were not told.",
    )


def test_the_connection_test_says_that_no_broker_answers(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_workflow_events.hooks._TEST_TIMEOUT_MS", 200)
    ok, message = WorkflowEventHook(connections.add(host="127.0.0.1", port=1)).test_connection()

    assert not ok
    assert "no Kafka broker at 127.0.0.1:1 answered" in message


def test_the_connection_test_says_that_the_broker_went_silent(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_workflow_events.hooks._TEST_TIMEOUT_MS", 200)
    with EmbeddedBroker() as broker:
        broker.set_round_trip_ms(60_000)
        hook = WorkflowEventHook(connections.add(extra={"bootstrap.servers": broker.bootstrap_servers}))
        ok, message = hook.test_connection()

    assert not ok
    assert "answered within 0.2 s" in message


@pytest.mark.parametrize(
    ("connection_fields", "complaint"),
    [
        ({}, "names no broker"),
        ({"host": "kafka", "extra": {"acks": "2"}}, "acks is '2'"),
        ({"host": "kafka", "extra": {"oauth_cb": "os.system"}}, "callback_allowlist is empty"),
        pytest.param(
            {
                "host": "b-1.demo.abcde1.c2.kafka.us-east-1.amazonaws.com",
                "extra": {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"},
            },
            "pip install apache-airflow-providers-apache-kafka[msk]",
            marks=MSK,
        ),
    ],
)
def test_the_connection_test_says_what_is_wrong_with_the_form(
    connections: Connections, connection_fields: dict[str, Any], complaint: str
) -> None:
    ok, message = WorkflowEventHook(connections.add(**connection_fields)).test_connection()

    assert not ok
    assert complaint in message
    assert "workflow_events_default" not in message, "in Airflow's UI it is tested under a random name"


@pytest.mark.real_kafka
def test_the_connection_test_says_that_the_topic_is_missing_and_creates_none(
    connections: Connections, real_broker: Broker
) -> None:
    topic = f"events-{uuid.uuid4()}"
    hook = WorkflowEventHook(
        connections.add(extra={"bootstrap.servers": real_broker.bootstrap_servers, "topic": topic})
    )

    for _ in range(2):
        ok, message = hook.test_connection()
        assert not ok
        assert f"topic {topic} does not exist" in message


class TestWithCredentials:
    """The connection test on a broker that asks who is there."""

    pytestmark = pytest.mark.real_kafka

    @pytest.fixture
    def secure_topic(self, kafka_cluster: KafkaCluster) -> str:
        topic = f"events-{uuid.uuid4()}"
        brokers.real(kafka_cluster.bootstrap_servers, "jvm").create_topic(topic)
        return topic

    @pytest.fixture
    def test_as(
        self, connections: Connections, secure_listener: SecureListener, secure_topic: str
    ) -> Callable[..., tuple[bool, str]]:
        """``test_as(user, **fields)``: the connection test's answer; it holds no password."""

        def test_as(user: str, **fields: str) -> tuple[bool, str]:
            extra = {**secure_listener.client_settings(user), "topic": secure_topic, **fields}
            ok, message = WorkflowEventHook(connections.add(extra=extra)).test_connection()
            assert extra["sasl.password"] not in message
            return ok, message

        return test_as

    def test_a_user_who_may_write_can_publish(self, test_as: Callable[..., tuple[bool, str]]) -> None:
        ok, message = test_as("writer")

        assert ok, message

    def test_a_wrong_password_is_refused_at_once(self, test_as: Callable[..., tuple[bool, str]]) -> None:
        ok, message = test_as("writer", **{"sasl.password": f"wrong-{secrets.token_hex(8)}"})

        assert not ok
        assert "authentication" in message.lower()

    def test_a_user_who_may_only_read_is_told_to_get_write(
        self, test_as: Callable[..., tuple[bool, str]], secure_topic: str
    ) -> None:
        assert test_as("reader") == (
            False,
            f"not authorised to write to topic {secure_topic}: grant the principal Write on it",
        )

    def test_a_user_who_may_do_nothing_is_told_so(
        self, test_as: Callable[..., tuple[bool, str]], secure_topic: str
    ) -> None:
        ok, message = test_as("nobody")

        assert not ok
        assert f"not authorised to see topic {secure_topic}" in message


def test_what_the_caller_says_wins_over_the_connection(connections: Connections) -> None:
    hook = WorkflowEventHook(
        connections.add(host="kafka", extra={"acks": "1", "delivery.timeout.ms": 60_000, "linger.ms": 5})
    )
    with hook.get_producer(
        connect=False, acks="all", delivery_timeout_ms=1_000, config={"queue.buffering.max.ms": 7}
    ) as producer:
        config = producer.client_config
    assert (config["acks"], config["message.timeout.ms"], config["linger.ms"]) == ("all", 1_000, 7)


def test_a_list_of_brokers_in_the_extra_is_understood(configuration: Configuration) -> None:
    assert configuration(extra={"bootstrap.servers": ["a:1", "b:2"]})["bootstrap.servers"] == "a:1,b:2"


@pytest.mark.parametrize(
    "read",
    [
        lambda hook: hook.connection,
        lambda hook: hook.fields,
        lambda hook: hook.topic,
        lambda hook: hook.environment,
        lambda hook: hook.get_conn,
        lambda hook: hook.client_options(),
        lambda hook: hook.consumer_options(),
    ],
    ids=["connection", "fields", "topic", "environment", "get_conn", "client_options", "consumer_options"],
)
def test_a_look_up_that_takes_long_holds_no_lock_that_another_hook_needs(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, read: Callable[[WorkflowEventHook], Any]
) -> None:
    """A child that is forked meanwhile would never get such a lock."""
    for conn_id in ("slow", "quick"):
        connections.add(conn_id, host="127.0.0.1", port=1)
    look_up, in_look_up, answer = WorkflowEventHook.get_connection, threading.Event(), threading.Event()

    def slow_look_up(conn_id: str) -> Any:
        if conn_id == "slow":
            in_look_up.set()
            assert answer.wait(60)
        return look_up(conn_id)

    monkeypatch.setattr(WorkflowEventHook, "get_connection", staticmethod(slow_look_up))
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(read, WorkflowEventHook("slow"))
        try:
            assert in_look_up.wait(60)
            quick = threads.submit(read, WorkflowEventHook("quick"))
            assert quick.result(timeout=60) is not None
            assert not slow.done()
        finally:
            answer.set()
        assert slow.result(timeout=60) is not None


def test_no_attribute_of_the_hook_is_computed_under_a_lock_of_its_class() -> None:
    """So is one of functools.cached_property in Python 3.11, those that the hook inherits among them."""
    names = [
        name
        for name in dir(WorkflowEventHook)
        if isinstance(getattr(WorkflowEventHook, name), cached_property)
    ]
    assert names == []
