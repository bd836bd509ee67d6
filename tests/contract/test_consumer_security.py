"""The consumer logs in where it should, and says what is wrong where it cannot."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import AsyncWorkflowEventConsumer, WorkflowEventConsumer
from airflow_workflow_events.errors import (
    ConfigurationError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
)
from tests.broker import Broker
from tests.brokers.certificates import make_certificates
from tests.brokers.jvm import SecureListener
from tests.brokers.secure_listener import unsecured_token
from tests.contract.async_consuming import take as take_async
from tests.contract.consuming import (
    QUICK,
    numbers,
    publish,
    take,
)

CANARY = "canary-7f3a"


def test_what_librdkafka_refuses_is_a_configuration_error_without_secrets() -> None:
    with pytest.raises(ConfigurationError, match="refuses") as caught:
        WorkflowEventConsumer(
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="me",
            sasl_password=CANARY,
            config={"no.such.option": CANARY},
        )
    assert CANARY not in str(caught.value)


def login(listener: SecureListener, user: str) -> dict[str, Any]:
    """The constructor's parameters for a user with a password."""
    return {
        "bootstrap_servers": listener.bootstrap_servers,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": user,
        "sasl_password": listener.users[user],
        "ssl_ca_location": Path(listener.ca_location),
        "config": QUICK,
    }


@pytest.mark.real_kafka
def test_a_user_with_permission_reads(
    secure_listener: SecureListener, real_broker: Broker, maybe_group: str | None
) -> None:
    topic = f"events-{uuid.uuid4()}"
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(3))
    options = login(secure_listener, "reader") | {"topic": topic, "start_from": "earliest"}

    with WorkflowEventConsumer(group_id=maybe_group, **options) as consumer:
        assert numbers(take(consumer, 3)) == [0, 1, 2]


@pytest.mark.real_kafka
@pytest.mark.parametrize("connect", [True, False])
async def test_a_user_with_a_token_reads_on_an_event_loop(
    secure_listener: SecureListener, real_broker: Broker, maybe_group: str | None, connect: bool
) -> None:
    topic = f"events-{uuid.uuid4()}"
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(3))
    options = login(secure_listener, "reader") | {"sasl_mechanism": "OAUTHBEARER", "sasl_username": None}
    consumer = AsyncWorkflowEventConsumer(
        **options | {"sasl_password": None, "topic": topic, "start_from": "earliest", "connect": connect},
        group_id=maybe_group,
        oauth_cb=unsecured_token("reader"),
    )

    async with consumer:
        assert numbers(await take_async(consumer, 3)) == [0, 1, 2]
        await consumer.commit()


@pytest.mark.real_kafka
@pytest.mark.parametrize("connect", [True, False])
def test_a_wrong_password_is_an_error_and_in_no_text(
    secure_listener: SecureListener, connect: bool, maybe_group: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    options = login(secure_listener, "reader") | {"sasl_password": CANARY, "connect": connect}

    with caplog.at_level(logging.DEBUG), pytest.raises(KafkaAuthenticationError) as caught:
        list(WorkflowEventConsumer(group_id=maybe_group, connect_timeout_ms=60_000, **options))

    assert not caught.value.retriable
    assert CANARY not in f"{caught.value!r} {caught.value} {caplog.text}"


@pytest.mark.real_kafka
@pytest.mark.parametrize("connect", [True, False])
def test_a_missing_permission_is_an_error_that_says_what_to_grant(
    secure_listener: SecureListener, real_broker: Broker, connect: bool, maybe_group: str | None
) -> None:
    topic = f"events-{uuid.uuid4()}"
    real_broker.create_topic(topic)
    options = login(secure_listener, "nobody") | {"topic": topic, "connect": connect}

    with pytest.raises(KafkaAuthorizationError, match="Read and Describe"):
        list(WorkflowEventConsumer(group_id=maybe_group, **options))


@pytest.mark.real_kafka
def test_a_broker_of_an_unknown_authority_is_refused(secure_listener: SecureListener, tmp_path: Path) -> None:
    options = login(secure_listener, "reader") | {"ssl_ca_location": make_certificates(tmp_path).ca}

    with pytest.raises((KafkaAuthenticationError, KafkaConnectionError), match=r"certificate|SSL"):
        WorkflowEventConsumer(connect_timeout_ms=30_000, **options)
