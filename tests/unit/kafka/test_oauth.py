"""A user's source of tokens that fails, hangs or returns something else."""

# ruff: noqa: TID253 - one of the clients runs on an event loop

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_workflow_events import (
    AsyncWorkflowEventConsumer,
    AsyncWorkflowEventProducer,
    WorkflowEventConsumer,
    WorkflowEventProducer,
)
from airflow_workflow_events.errors import KafkaAuthenticationError
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.oauth import with_first_token
from tests.events import make_event
from tests.messages import make_message

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


class Provider:
    """An identity provider that answers, in vain, once the event loop lets it."""

    def __init__(self) -> None:
        self._asked, self._release = threading.Event(), threading.Event()

    def __call__(self, _config: str) -> tuple[str, float]:
        self._asked.set()
        self._release.wait()  # the loop releases it, which it could not if it stood still
        raise ConnectionError("down")

    async def answer(self) -> None:
        """Wait until it is asked, and have it answer."""
        while not self._asked.is_set():
            await asyncio.sleep(0.01)
        self._release.set()


async def test_the_event_loop_goes_on_while_a_producer_waits_for_a_token() -> None:
    provider = Provider()
    producer = AsyncWorkflowEventProducer(**OPTIONS, oauth_cb=provider, connect=False)
    sent = [producer.send(make_event()) for _ in range(2)]
    await provider.answer()

    for report in await asyncio.gather(*sent):
        assert isinstance(report.error, KafkaAuthenticationError)
    with pytest.raises(KafkaAuthenticationError):
        await producer.publish_event(make_event())
    assert await producer.close()


@pytest.mark.parametrize("connect", [True, False])
@pytest.mark.parametrize("group_id", [None, "reports"])
async def test_the_event_loop_goes_on_while_a_consumer_waits_for_a_token(
    connect: bool, group_id: str | None
) -> None:
    provider = Provider()
    consumer = AsyncWorkflowEventConsumer(**OPTIONS, group_id=group_id, oauth_cb=provider, connect=connect)

    async def read() -> None:
        async with consumer:
            await anext(consumer.records())

    reading = asyncio.ensure_future(read())
    await provider.answer()

    with pytest.raises(KafkaAuthenticationError, match="down"):
        await reading
    assert "closed" in repr(consumer)


async def test_a_consumer_that_was_never_asked_for_anything_asks_for_no_token() -> None:
    async with AsyncWorkflowEventConsumer(**OPTIONS, oauth_cb=failing, connect=False):
        pass


async def test_a_consumer_gives_a_hanging_callback_up_within_the_users_bound() -> None:
    provider = Provider()
    with pytest.raises(KafkaAuthenticationError, match=r"no token within 0\.05 s"):
        await AsyncWorkflowEventConsumer(**OPTIONS, oauth_cb=provider, connect_timeout_ms=50).start()
    await provider.answer()


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
        make_message("events", b"x"), ValueError("x"), is_stopped=lambda: "provider" in caplog.text
    )
    assert "trying again: oauth_cb gave no token: ConnectionError: the identity provider" in caplog.text
    assert CANARY not in caplog.text
