"""Messages of confluent-kafka that no broker sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message


def make_message(
    topic: str | None = None, value: bytes | None = None, timestamp_ms: int | None = None
) -> Message:
    """Return a message with that much in it."""
    timestamp = (
        (TIMESTAMP_NOT_AVAILABLE, 0) if timestamp_ms is None else (TIMESTAMP_CREATE_TIME, timestamp_ms)
    )
    try:
        return Message(topic=topic, value=value, timestamp=timestamp)
    except TypeError:  # confluent-kafka below 2.13 makes none but what a consumer reads
        return cast("Message", _Message(topic, value, timestamp))


@dataclass(frozen=True)
class _Message:
    topic_name: str | None
    content: bytes | None
    time: tuple[int, int]

    def topic(self) -> str | None:
        return self.topic_name

    def partition(self) -> int | None:
        return None

    def offset(self) -> int | None:
        return None

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> list[tuple[str, bytes]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return self.time

    def error(self) -> None:
        return None
