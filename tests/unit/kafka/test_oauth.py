"""A user's source of tokens that fails, hangs or returns something else."""

# ruff: noqa: TID253 - one of the clients runs on an event loop

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message

from airflow_workflow_events import (
    AsyncWorkflowEventProducer,
    WorkflowEventConsumer,
    WorkflowEventProducer,
)
from airflow_workflow_events.errors import KafkaAuthenticationError
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.oauth import with_first_token
from tests.events import make_event

CANARY = "canary-7f3a"
OPTIONS: dict[str, Any] = {
    "bootstrap_servers": "127.0.0.1:1",
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "OAUTHBEARER",
    "config": {"sasl.oauthbearer.config": CANARY},
}


def failing(config: str) -> tuple[str, float]:
    raise ConnectionError(f"the identity provider is down\nfor {config}")


@pytest.mark.parametrize("connect", [True, False])
@pytest.mark.parametrize("client", [WorkflowEventProducer, WorkflowEventConsumer])
@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (failing, r"ConnectionError: the identity provider is down for \*\*\*"),
        (lambda _: "a token", "must return a tuple"),
        (lambda _: ("", 0.0), "must return a tuple"),
    ],
    ids=["raises", "text", "empty"],
)
def test_a_callback_that_gives_no_token_is_an_authentication_error_with_the_reason(
    client: Callable[..., object], callback: Callable[[str], Any], reason: str, connect: bool
) -> None:
    with pytest.raises(KafkaAuthenticationError, match=reason) as caught:
        client(**OPTIONS, oauth_cb=callback, connect=connect)

    assert caught.value.retriable
    assert CANARY not in str(caught.value)


def test_a_callback_that_hangs_is_given_up_within_the_users_bound() -> None:
    release = threading.Event()

    def callback(_config: str) -> tuple[str, float]:
        release.wait()
        return "too late", 0.0

    try:
        with pytest.raises(KafkaAuthenticationError, match=r"no token within 0\.05 s"):
            WorkflowEventProducer(**OPTIONS, oauth_cb=callback, connect_timeout_ms=50)
    finally:
        release.set()


def test_the_first_token_is_fetched_once_and_a_later_failure_is_noted() -> None:
    asked: list[str] = []

    def callback(config: str) -> tuple[str, float]:
        asked.append(config)
        if len(asked) > 1:
            raise ConnectionError(f"down, {CANARY}")
        return "token", 1.0

    noted: list[str] = []
    given = with_first_token({"oauth_cb": callback, "sasl.oauthbearer.config": CANARY}, 10, noted.append)

    assert given["oauth_cb"](CANARY) == ("token", 1.0)
    assert asked == [CANARY]
    with pytest.raises(ConnectionError):
        given["oauth_cb"](CANARY)
    assert noted == ["ConnectionError: down, ***"]


async def test_the_event_loop_goes_on_while_a_token_is_waited_for() -> None:
    asked, release = threading.Event(), threading.Event()

    def callback(_config: str) -> tuple[str, float]:
        asked.set()
        release.wait()  # the loop below releases it, which it could not if it stood still
        raise ConnectionError("down")

    producer = AsyncWorkflowEventProducer(**OPTIONS, oauth_cb=callback, connect=False)
    sent = [producer.send(make_event()) for _ in range(2)]
    while not asked.is_set():
        await asyncio.sleep(0.01)
    release.set()

    for report in await asyncio.gather(*sent):
        assert isinstance(report.error, KafkaAuthenticationError)
    with pytest.raises(KafkaAuthenticationError):
        await producer.publish_event(make_event())
    assert await producer.close()


def test_a_dead_letter_waits_for_a_token_that_cannot_be_had_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": CANARY,
        "oauth_cb": failing,
    }
    topic = DeadLetterTopic(config, "dead", None)

    assert not topic.send(
        Message(topic="events", value=b"x"), ValueError("x"), is_stopped=lambda: "provider" in caplog.text
    )
    assert "trying again: oauth_cb gave no token: ConnectionError: the identity provider" in caplog.text
    assert CANARY not in caplog.text
