"""A user's ``oauth_cb``, asked for its first token before there is a client.

confluent-kafka waits ten seconds for a token inside a client's constructor, forgets what the callback raised,
and in a consumer lets a ``SystemError`` out. So the first token is fetched here, within the user's own bound.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from airflow_workflow_events.errors import KafkaAuthenticationError, text_of
from airflow_workflow_events.kafka.config import one_line, without_secrets

TOKEN_SECONDS = 10.0
"""How long a callback may take for the first token where nobody says otherwise, in seconds."""

Token = tuple[Any, ...]
"""A token, its expiry in seconds since the epoch and, if need be, a principal and extensions."""

_LEAST_ITEMS, _MOST_ITEMS = 2, 4


def waits_for_token(config: Mapping[str, Any]) -> bool:
    """Return whether a client with this configuration waits for its first token where it is made."""
    # confluent-kafka waits for a token of its own source, too.
    own_source = str(config.get("sasl.oauthbearer.metadata.authentication.type", ""))
    return config.get("oauth_cb") is not None or own_source not in {"", "none"}


def with_first_token(
    config: Mapping[str, Any], timeout: float, note_failure: Callable[[str], None]
) -> dict[str, Any]:
    """Return a client's configuration whose ``oauth_cb``, if there is one, has its first token already.

    Args:
        config: librdkafka's configuration.
        timeout: how long the callback may take for it, in seconds.
        note_failure: told why a later token could not be had.

    Raises:
        KafkaAuthenticationError: the callback raised, returned no token, or took too long. Retriable, as
            identity providers come back.
    """
    callback = config.get("oauth_cb")
    if callback is None:
        return dict(config)
    first: list[Token] = [_within(timeout, callback, config)]

    def call(text: str | None) -> Token:
        if first:
            return first.pop()
        try:
            return _checked(callback(text))
        except Exception as error:
            note_failure(_reason(error, config))
            raise

    return {**config, "oauth_cb": call}


def _within(timeout: float, callback: Callable[[Any], Token], config: Mapping[str, Any]) -> Token:
    outcome: list[Token | BaseException] = []

    def fetch() -> None:
        try:
            outcome.append(_checked(callback(config.get("sasl.oauthbearer.config", ""))))
        except BaseException as error:  # noqa: BLE001 - the user's code; it is told to who waits
            outcome.append(error)

    # In a thread, as nothing else bounds what it does; one that hangs is left behind.
    thread = threading.Thread(target=fetch, name="workflow-events-token", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise _failure(f"it gave no token within {timeout:g} s")
    if isinstance(outcome[0], BaseException):
        raise _failure(_reason(outcome[0], config))
    return outcome[0]


def _checked(result: object) -> Token:
    """Return what a callback returned, if confluent-kafka can take it; it fails badly where it cannot."""
    match result:
        case (str() as token, int() | float(), *others) if (
            token and len(others) <= _MOST_ITEMS - _LEAST_ITEMS
        ):
            if isinstance(result, tuple):
                return result
    raise TypeError("it must return a tuple (token, expiry in seconds since the epoch)")


def _reason(error: BaseException, config: Mapping[str, Any]) -> str:
    return one_line(without_secrets(f"{type(error).__name__}: {text_of(error)}", config))


def _failure(reason: str) -> KafkaAuthenticationError:
    return KafkaAuthenticationError(
        f"oauth_cb gave no token: {reason} (check the identity provider, its address and the secret)",
        name="_AUTHENTICATION",
        retriable=True,
    )
