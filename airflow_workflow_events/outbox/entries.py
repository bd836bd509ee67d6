"""What goes into an outbox and comes out of it, and how much of it there may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from airflow_workflow_events.errors import ConfigurationError

WhenFull = Literal["refuse", "drop_oldest"]


class Route(NamedTuple):
    """Where entries go: the unit of claiming and of backing off.

    Attributes:
        conn_id: the connection; ``None`` for the default.
        topic: the topic; ``None`` for the connection's.
    """

    conn_id: str | None = None
    topic: str | None = None


DEFAULT_ROUTE = Route()
"""The default connection, and its topic."""


class OutboxEntry(NamedTuple):
    """One event in the outbox.

    Attributes:
        seq: its place: lower is older.
        event_id: the event's id.
        ordering_key: the event's Kafka key.
        payload: the event's JSON.
        environment_is_default: whether a connection's environment replaces the event's.
        attempts: how often delivery has failed.
    """

    seq: int
    event_id: str
    ordering_key: str
    payload: str
    environment_is_default: bool
    attempts: int


class ParkedEntry(NamedTuple):
    """An event that can never be delivered as it is.

    Attributes:
        seq: its place in the outbox.
        event_id: the event's id.
        event_type: what happened.
        ordering_key: the event's Kafka key.
        route: where it should have gone.
        reason: why it was parked.
        parked_at: when, in seconds since the epoch.
    """

    seq: int
    event_id: str
    event_type: str
    ordering_key: str
    route: Route
    reason: str | None
    parked_at: float


class Totals(NamedTuple):
    """What is in the outbox.

    Attributes:
        pending: entries that wait for delivery.
        parked: entries that are parked.
        size_bytes: bytes of all of them.
        oldest_age_seconds: age of the oldest that waits, in seconds; ``None`` where none waits.
    """

    pending: int
    parked: int
    size_bytes: int
    oldest_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the outbox may become.

    Args:
        max_rows: entries, parked ones included. Default 1,000,000.
        max_bytes: bytes of their JSON. Default 1 GiB.
        max_age_seconds: what waits for longer is parked. Default 7 days.
        when_full: ``refuse`` the new event (default), or ``drop_oldest``: parked ones first.

    Raises:
        ConfigurationError: a bound is not above 0, or ``when_full`` is neither.
    """

    max_rows: int = 1_000_000
    max_bytes: int = 2**30
    max_age_seconds: float = 7 * 86_400
    when_full: WhenFull = "refuse"

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_bytes", "max_age_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: use a number above 0")
        if self.when_full not in {"refuse", "drop_oldest"}:
            raise ConfigurationError(f"when_full is {self.when_full!r}: use 'refuse' or 'drop_oldest'")
