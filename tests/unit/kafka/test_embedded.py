"""The embedded broker serves real clients and does what tests ask of it."""

from __future__ import annotations

import subprocess
import sys
import uuid

import confluent_kafka
import pytest

from airflow_workflow_events import ConfigurationError, EmbeddedBroker, KafkaError, WorkflowEventProducer
from airflow_workflow_events.kafka import embedded
from tests.broker import embedded as describe
from tests.events import make_event


def partitions_of(broker: EmbeddedBroker, topic: str) -> int:
    client = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    return len(client.list_topics(topic, timeout=10).topics[topic].partitions)


def test_an_event_published_to_it_can_be_consumed_from_it() -> None:
    with EmbeddedBroker() as broker:
        event = make_event()
        with WorkflowEventProducer(broker.bootstrap_servers, topic="t") as producer:
            assert producer.publish_event(event)

        (message,) = describe(broker).messages("t", 1)
        assert message.key() == event.ordering_key.encode()


def test_a_client_of_another_process_reaches_it() -> None:
    program = (
        "import sys, confluent_kafka\n"
        "client = confluent_kafka.Producer({'bootstrap.servers': sys.argv[1]})\n"
        "client.produce('t', b'hello')\n"
        "sys.exit(client.flush(10))"
    )
    with EmbeddedBroker() as broker:
        subprocess.run([sys.executable, "-c", program, broker.bootstrap_servers], check=True, timeout=60)

        (message,) = describe(broker).messages("t", 1)
        assert message.value() == b"hello"


def test_topics_have_the_partitions_asked_for_and_four_when_made_on_first_use() -> None:
    with EmbeddedBroker(topics={"one": 1}) as broker:
        broker.create_topic("seven", 7)

        assert [partitions_of(broker, topic) for topic in ("one", "seven", "any")] == [1, 7, 4]


def test_a_topic_that_exists_is_not_made_again() -> None:
    with (
        EmbeddedBroker(topics={"one": 1}) as broker,
        pytest.raises(KafkaError, match="cannot create topic one"),
    ):
        broker.create_topic("one")


def test_it_can_have_several_brokers() -> None:
    with EmbeddedBroker(brokers=3) as broker:
        assert len(broker.bootstrap_servers.split(",")) == 3


@pytest.mark.parametrize("brokers", [0, -1])
def test_no_brokers_at_all_are_refused(brokers: int) -> None:
    with pytest.raises(ConfigurationError, match="use 1 or more"):
        EmbeddedBroker(brokers=brokers)


def test_starting_and_stopping_twice_does_nothing_the_second_time() -> None:
    broker = EmbeddedBroker()

    assert broker.start() is broker
    servers = broker.bootstrap_servers
    assert broker.start().bootstrap_servers == servers
    broker.stop()
    broker.stop()


def test_it_can_be_started_again_after_it_was_stopped() -> None:
    broker = EmbeddedBroker(topics={"one": 1})
    broker.start()
    broker.stop()

    with broker:
        assert partitions_of(broker, "one") == 1


def test_used_while_it_is_not_running_it_says_what_to_do() -> None:
    broker = EmbeddedBroker()

    for use in (lambda: broker.bootstrap_servers, broker.take_down, lambda: broker.create_topic("t")):
        with pytest.raises(ConfigurationError, match="not running: use it with 'with' or call start"):
            use()


def test_messages_survive_being_down() -> None:
    with EmbeddedBroker() as broker:
        with WorkflowEventProducer(broker.bootstrap_servers, topic="t") as producer:
            producer.publish_event(make_event())
        broker.take_down()
        broker.bring_up()

        assert len(describe(broker).messages("t", 1)) == 1


def test_failures_asked_for_can_be_taken_back() -> None:
    with EmbeddedBroker() as broker:
        broker.fail_produce_requests([confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED] * 9)
        broker.clear_failures()
        with WorkflowEventProducer(broker.bootstrap_servers, topic=f"t-{uuid.uuid4()}") as producer:
            assert producer.publish_event(make_event())


def test_a_librdkafka_without_the_mock_cluster_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded._SIGNATURES, "rd_kafka_no_such_function", (None, []))

    with pytest.raises(ConfigurationError, match="has no mock cluster"):
        EmbeddedBroker()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBroker():
        pass

    assert capfd.readouterr() == ("", "")
