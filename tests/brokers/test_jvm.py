"""The test brokers do what the tests that use them rely on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from tests.brokers.certificates import make_certificates
from tests.brokers.jvm import KafkaCluster, KafkaUnavailable, SecureListener, kafka_jars
from tests.waiting import await_condition

pytestmark = pytest.mark.real_kafka


@pytest.fixture(scope="session")
def jars(pytestconfig: pytest.Config) -> Path:
    try:
        return kafka_jars(pytestconfig.rootpath / ".work" / "kafka-jars")
    except KafkaUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def plain_cluster(jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(jars, tmp_path_factory.mktemp("plain")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secure_cluster(jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(jars, tmp_path_factory.mktemp("secure"), secure=True) as cluster:
        cluster.create_topic("events-orders")
        yield cluster


@pytest.fixture
def secure(secure_cluster: KafkaCluster) -> SecureListener:
    assert secure_cluster.secure is not None
    return secure_cluster.secure


@pytest.fixture
def three_brokers(jars: Path, tmp_path: Path) -> Iterator[KafkaCluster]:
    with KafkaCluster(jars, tmp_path, brokers=3) as cluster:
        yield cluster


def test_a_single_broker_hands_a_produced_message_to_a_consumer(plain_cluster: KafkaCluster) -> None:
    plain_cluster.create_topic("greetings")

    assert produce({"bootstrap.servers": plain_cluster.bootstrap_servers}, "greetings", b"hello") is None

    settings = {"bootstrap.servers": plain_cluster.bootstrap_servers}
    assert consume(settings, "greetings").value() == b"hello"


def test_a_created_topic_has_a_leader_for_each_of_its_partitions(plain_cluster: KafkaCluster) -> None:
    plain_cluster.create_topic("spread", partitions=3, config={"retention.ms": "60000"})

    assert [plain_cluster.leader("spread", partition) for partition in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"])
def test_the_secure_listener_lets_the_writer_write_and_the_reader_read(
    secure: SecureListener, mechanism: str
) -> None:
    topic = f"events-{uuid.uuid4()}"

    assert produce(secure.client_settings("writer", mechanism), topic, b"hello") is None

    assert consume(secure.client_settings("reader", mechanism), topic).value() == b"hello"


def test_the_secure_listener_refuses_a_wrong_password(secure: SecureListener) -> None:
    settings = secure.client_settings("writer") | {"sasl.password": "wrong"}

    assert KafkaError._AUTHENTICATION in errors_of_logging_in(settings)


@pytest.mark.parametrize(
    ("user", "topic"), [("nobody", "events-orders"), ("reader", "events-orders"), ("writer", "orders")]
)
def test_the_secure_listener_refuses_a_write_that_was_not_granted(
    secure: SecureListener, user: str, topic: str
) -> None:
    error = produce(secure.client_settings(user), topic, b"hello")

    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_the_secure_listener_accepts_a_client_certificate_of_its_authority(secure: SecureListener) -> None:
    certificate = {
        "ssl.certificate.location": secure.client_certificate_location,
        "ssl.key.location": secure.client_key_location,
    }

    assert produce(secure.client_settings("writer") | certificate, "events-orders", b"hello") is None


def test_the_secure_listener_refuses_a_client_certificate_of_another_authority(
    secure: SecureListener, tmp_path: Path
) -> None:
    foreign = make_certificates(tmp_path)
    settings = secure.client_settings("writer") | {
        "ssl.certificate.location": str(foreign.client_certificate),
        "ssl.key.location": str(foreign.client_key),
    }

    # Which of the two depends on whether the client reads the broker's answer before it hangs up.
    assert {KafkaError._SSL, KafkaError._TRANSPORT} & set(errors_of_logging_in(settings))


def test_the_tls_listener_takes_the_client_certificate_for_the_login(secure: SecureListener) -> None:
    settings = {
        "bootstrap.servers": secure.mutual_tls_servers,
        "security.protocol": "SSL",
        "ssl.ca.location": secure.ca_location,
    }
    certificate = {
        "ssl.certificate.location": secure.client_certificate_location,
        "ssl.key.location": secure.client_key_location,
    }

    assert produce(settings | certificate, "events-orders", b"hello") is None
    assert {KafkaError._SSL, KafkaError._TRANSPORT} & set(errors_of_logging_in(settings))


def test_producing_with_acks_all_goes_on_after_the_leader_was_killed(three_brokers: KafkaCluster) -> None:
    three_brokers.create_topic("orders")
    settings = {"bootstrap.servers": three_brokers.bootstrap_servers, "acks": "all"}
    assert produce(settings, "orders", b"before") is None
    killed = three_brokers.leader("orders", 0)

    three_brokers.kill(killed)

    def moved() -> bool:
        return three_brokers.leader("orders", 0) != killed

    await_condition(moved, timeout_seconds=30, what="another leader")
    assert produce(settings, "orders", b"after") is None

    three_brokers.start_broker(killed)
    assert consume(settings, "orders").value() == b"before"


def test_a_paused_broker_loses_its_leadership_and_comes_back_when_resumed(
    three_brokers: KafkaCluster,
) -> None:
    three_brokers.create_topic("orders")
    paused = three_brokers.leader("orders", 0)

    three_brokers.pause(paused)

    def moved() -> bool:
        return three_brokers.leader("orders", 0) != paused

    await_condition(moved, timeout_seconds=30, what="another leader")
    three_brokers.resume(paused)
    three_brokers.await_ready()


def produce(settings: dict[str, str], topic: str, value: bytes) -> KafkaError | None:
    """Send one message and return the error of its delivery, if any."""
    reports: list[KafkaError | None] = []
    producer = Producer({**settings, "log_level": 0, "message.timeout.ms": 30_000})
    producer.produce(topic, value, on_delivery=lambda error, _: reports.append(error))
    producer.flush(40)
    return reports[0]


def errors_of_logging_in(settings: dict[str, str]) -> list[int]:
    """The codes of the first errors a client with these settings reports."""
    errors: list[KafkaError] = []
    producer = Producer({**settings, "error_cb": errors.append, "log_level": 0})

    def reported() -> list[KafkaError]:
        producer.poll(0)
        return errors

    return [error.code() for error in await_condition(reported, timeout_seconds=20, what="an error")]


def consume(settings: dict[str, str], topic: str) -> Message:
    """The first message of a topic."""
    consumer = Consumer(
        {
            **{key: value for key, value in settings.items() if key != "acks"},
            "group.id": str(uuid.uuid4()),
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(30)
    finally:
        consumer.close()
    assert message is not None
    error = message.error()
    if error is not None:
        raise KafkaException(error)
    return message
