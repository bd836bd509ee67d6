"""The producer logs in where it should, and says what is wrong where it cannot."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from airflow_workflow_events import KafkaError, WorkflowEventProducer
from airflow_workflow_events.errors import (
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
)
from tests.brokers.certificates import make_certificates
from tests.brokers.jvm import SecureListener
from tests.brokers.secure_listener import unsecured_token
from tests.events import make_event, make_events

pytestmark = pytest.mark.real_kafka

PASSWORD_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")
CANARY = "canary-7f3a"


@pytest.fixture
def writable() -> str:
    """A topic the user ``writer`` may create and write to."""
    return f"events-{uuid.uuid4()}"


def login(listener: SecureListener, user: str = "writer", mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
    """The constructor's parameters for a user with a password."""
    return {
        "bootstrap_servers": listener.bootstrap_servers,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_username": user,
        "sasl_password": listener.users[user],
        "ssl_ca_location": Path(listener.ca_location),
    }


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
def test_a_user_with_a_password_publishes(
    mechanism: str, secure_listener: SecureListener, writable: str
) -> None:
    with WorkflowEventProducer(**login(secure_listener, mechanism=mechanism), topic=writable) as producer:
        assert producer.publish_event(make_event(), timeout=30)


def test_a_user_with_a_token_publishes(secure_listener: SecureListener, writable: str) -> None:
    with WorkflowEventProducer(
        secure_listener.bootstrap_servers,
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_cb=unsecured_token("writer"),
        ssl_ca_location=secure_listener.ca_location,
        topic=writable,
    ) as producer:
        assert producer.publish_event(make_event(), timeout=30)


def test_a_user_with_a_client_certificate_publishes(secure_listener: SecureListener, writable: str) -> None:
    with WorkflowEventProducer(
        **login(secure_listener),
        ssl_certificate_location=Path(secure_listener.client_certificate_location),
        ssl_key_location=Path(secure_listener.client_key_location),
        topic=writable,
    ) as producer:
        assert producer.publish_event(make_event(), timeout=30)


def test_librdkafkas_own_options_log_in_as_well(secure_listener: SecureListener, writable: str) -> None:
    settings = secure_listener.client_settings("writer", "SCRAM-SHA-256")

    with WorkflowEventProducer(topic=writable, config=settings) as producer:
        assert producer.publish_event(make_event(), timeout=30)


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
def test_a_wrong_password_is_noticed_quickly_and_is_in_no_text(
    mechanism: str, secure_listener: SecureListener, caplog: pytest.LogCaptureFixture
) -> None:
    options = login(secure_listener, mechanism=mechanism) | {"sasl_password": CANARY}
    started = monotonic()

    with caplog.at_level(logging.DEBUG), pytest.raises(KafkaAuthenticationError) as caught:
        WorkflowEventProducer(**options, connect_timeout_ms=60_000, config={"debug": "security,conf"})

    assert monotonic() - started < 30
    assert not caught.value.retriable
    assert CANARY not in f"{caught.value!r} {caught.value} {caplog.text}"


def test_an_unknown_user_is_refused(secure_listener: SecureListener) -> None:
    options = login(secure_listener) | {"sasl_username": "stranger"}

    with pytest.raises(KafkaAuthenticationError):
        WorkflowEventProducer(**options, connect_timeout_ms=30_000)


def test_a_broker_of_an_unknown_authority_is_refused(secure_listener: SecureListener, tmp_path: Path) -> None:
    options = login(secure_listener) | {"ssl_ca_location": make_certificates(tmp_path).ca}

    with pytest.raises((KafkaAuthenticationError, KafkaConnectionError), match=r"certificate|SSL"):
        WorkflowEventProducer(**options, connect_timeout_ms=30_000)


def test_a_client_certificate_of_an_unknown_authority_is_refused(
    secure_listener: SecureListener, tmp_path: Path
) -> None:
    foreign = make_certificates(tmp_path)

    with pytest.raises((KafkaAuthenticationError, KafkaConnectionError)):
        WorkflowEventProducer(
            **login(secure_listener),
            ssl_certificate_location=foreign.client_certificate,
            ssl_key_location=foreign.client_key,
            connect_timeout_ms=3_000,
        )


def test_speaking_plaintext_to_a_secure_listener_is_a_connection_error(
    secure_listener: SecureListener,
) -> None:
    with pytest.raises(KafkaError) as caught:
        WorkflowEventProducer(secure_listener.bootstrap_servers, connect_timeout_ms=2_000)

    assert isinstance(caught.value, KafkaConnectionError | KafkaAuthenticationError)


# Asking for idempotence needs a permission of its own, and which refusal comes first is a race.
@pytest.mark.parametrize("user", ["nobody", "reader"])
def test_a_user_without_any_permission_logs_in_and_is_told_so_at_every_event(
    user: str, secure_listener: SecureListener, writable: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = make_events(3)
    with WorkflowEventProducer(**login(secure_listener, user), topic=writable) as producer:
        reports = [
            producer.deliver(first, timeout=30),
            producer.deliver(second, timeout=30),
            producer.send(third).result(30),
        ]

    for report in reports:
        assert isinstance(report.error, KafkaAuthorizationError)
        assert not report.error.retriable
        assert f"event {report.event_id} was not delivered" in caplog.text


def test_a_missing_permission_on_the_topic_is_named_in_the_log(
    secure_listener: SecureListener, writable: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = login(secure_listener, "nobody") | {"enable_idempotence": False}
    with WorkflowEventProducer(**options, topic=writable) as producer:
        assert producer.publish_event(make_event(), timeout=30) is False

    assert "Topic authorization" in caplog.text
    assert "grant the principal Write" in caplog.text
