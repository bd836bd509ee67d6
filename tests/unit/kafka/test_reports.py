"""librdkafka's errors in this package's words."""

from __future__ import annotations

import confluent_kafka
import pytest

from airflow_workflow_events.errors import (
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaQueueFullError,
)
from airflow_workflow_events.kafka.reports import HOPELESS, DeliveryReport, translate

Code = confluent_kafka.KafkaError


@pytest.mark.parametrize(
    ("code", "kind", "retriable"),
    [
        (Code._TRANSPORT, KafkaConnectionError, True),
        (Code._ALL_BROKERS_DOWN, KafkaConnectionError, True),
        (Code._RESOLVE, KafkaConnectionError, True),
        (Code._AUTHENTICATION, KafkaAuthenticationError, False),
        (Code._SSL, KafkaAuthenticationError, False),
        (Code.SASL_AUTHENTICATION_FAILED, KafkaAuthenticationError, False),
        (Code.TOPIC_AUTHORIZATION_FAILED, KafkaAuthorizationError, False),
        (Code.CLUSTER_AUTHORIZATION_FAILED, KafkaAuthorizationError, False),
        (Code._QUEUE_FULL, KafkaQueueFullError, True),
        (Code._MSG_TIMED_OUT, KafkaError, True),
        (Code._FATAL, KafkaError, True),
        (Code.NOT_ENOUGH_REPLICAS, KafkaError, True),
        (Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError, True),
        (Code.NOT_LEADER_FOR_PARTITION, KafkaError, True),
        (Code.LEADER_NOT_AVAILABLE, KafkaError, True),
        (Code.REQUEST_TIMED_OUT, KafkaError, True),
        (Code.MSG_SIZE_TOO_LARGE, KafkaError, False),
        (Code.UNKNOWN_TOPIC_OR_PART, KafkaError, False),
        (Code._PURGE_QUEUE, KafkaError, True),
        (Code.INVALID_RECORD, KafkaError, False),
    ],
)
def test_an_error_gets_its_kind_its_name_and_whether_to_try_again(
    code: int, kind: type[KafkaError], retriable: bool
) -> None:
    error = translate(Code(code))

    assert type(error) is kind
    assert error.retriable is retriable
    assert error.name == Code(code).name()
    assert str(error).startswith(f"{error.name}: ")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (Code._MSG_TIMED_OUT, "leader is reachable"),
        (Code.TOPIC_AUTHORIZATION_FAILED, "grant the principal Write"),
        (Code.CLUSTER_AUTHORIZATION_FAILED, "IdempotentWrite"),
        (Code.MSG_SIZE_TOO_LARGE, "max.message.bytes"),
        (Code._UNKNOWN_TOPIC, "create the topic"),
        (Code.UNKNOWN_TOPIC_OR_PART, "create the topic"),
    ],
)
def test_an_error_somebody_can_do_something_about_says_what(code: int, advice: str) -> None:
    assert advice in str(translate(Code(code)))


def test_the_text_given_stands_in_place_of_the_errors_own() -> None:
    assert str(translate(Code(Code._SSL, "password canary"), "password ***")) == "_SSL: password ***"


def test_only_wrong_credentials_and_certificates_are_hopeless() -> None:
    assert {Code._AUTHENTICATION, Code.SASL_AUTHENTICATION_FAILED, Code._SSL} == HOPELESS


def test_after_a_fatal_error_trying_again_helps_unless_a_permission_is_missing() -> None:
    assert translate(Code(Code.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True)).retriable
    assert not translate(Code(Code.CLUSTER_AUTHORIZATION_FAILED, fatal=True)).retriable


def test_a_report_without_an_error_is_a_delivery() -> None:
    assert DeliveryReport("1", "t", 0, 7).delivered
    assert DeliveryReport("1", "t").delivered
    assert not DeliveryReport("1", "t", error=KafkaError("no")).delivered
