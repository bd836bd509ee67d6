"""A fault lasts as long as its block, however that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from airflow_workflow_events import ConfigurationError, EmbeddedBroker, WorkflowEventProducer
from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.testing import broker_down, make_event, refusing_broker, slow_broker

Fault = Callable[[EmbeddedBroker], AbstractContextManager[EmbeddedBroker]]

FAULTS: dict[str, Fault] = {
    "down": broker_down,
    "slow": lambda broker: slow_broker(broker, round_trip_ms=60_000),
    "refusing": lambda broker: refusing_broker(broker, times=None),
}


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={"t": 1}) as broker:
        yield broker


def publish(broker: EmbeddedBroker, **options: object) -> bool:
    with WorkflowEventProducer(broker.bootstrap_servers, topic="t", **options) as producer:  # type: ignore[arg-type]
        return producer.publish_event(make_event())


@pytest.mark.parametrize("name", FAULTS)
def test_the_broker_is_as_before_when_a_test_failed_in_the_block(broker: EmbeddedBroker, name: str) -> None:
    def failing_test() -> None:
        with FAULTS[name](broker) as same:
            assert same is not broker

    with pytest.raises(AssertionError):
        failing_test()

    assert publish(broker)


def test_a_broker_that_is_down_cannot_be_reached(broker: EmbeddedBroker) -> None:
    with broker_down(broker), pytest.raises(KafkaConnectionError):
        publish(broker, connect_timeout_ms=200)


def test_a_slow_broker_answers_after_the_round_trip(broker: EmbeddedBroker) -> None:
    with slow_broker(broker, round_trip_ms=60_000), pytest.raises(KafkaConnectionError):
        publish(broker, connect_timeout_ms=200)


def test_a_refusing_broker_refuses_so_many_requests(broker: EmbeddedBroker) -> None:
    with refusing_broker(broker, times=2):
        assert [publish(broker) for _ in range(3)] == [False, False, True]


def test_a_refusing_broker_refuses_every_request_of_the_block(broker: EmbeddedBroker) -> None:
    with refusing_broker(broker, "INVALID_RECORD", times=None):
        assert [publish(broker) for _ in range(3)] == [False, False, False]


def test_a_retriable_error_is_tried_again_by_the_client(broker: EmbeddedBroker) -> None:
    with refusing_broker(broker, "NOT_LEADER_FOR_PARTITION"):
        assert publish(broker)


@pytest.mark.parametrize("error", ["TOPIC_AUTHORISATION_FAILED", "_TRANSPORT", "code", ""])
def test_an_error_that_no_broker_sends_is_refused_with_those_that_one_does(
    broker: EmbeddedBroker, error: str
) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"no broker answers with .* use [A-Z_]+"),
        refusing_broker(broker, error),
    ):
        pass


@pytest.mark.parametrize("times", [0, -1])
def test_to_refuse_nothing_is_a_mistake(broker: EmbeddedBroker, times: int) -> None:
    with pytest.raises(ConfigurationError, match="use 1 or more"), refusing_broker(broker, times=times):
        pass
