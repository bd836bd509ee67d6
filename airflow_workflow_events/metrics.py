"""What is counted, and the small protocol through which it is told: Airflow's Stats, or a service's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

PUBLISHED = "workflow_events.published"
"""Counter: events that the broker confirmed."""
FAILED = "workflow_events.failed"
"""Counter: events that were given up, and attempts by callbacks that came to nothing."""
ACCEPTED = "workflow_events.accepted"
"""Counter: events that the outbox accepted."""
PARKED = "workflow_events.parked"
"""Counter: events that can never be delivered as they are, kept in the outbox with their reason."""
DROPPED = "workflow_events.dropped"
"""Counter: events that were refused or removed at the outbox's bound."""
OUTBOX_ERRORS = "workflow_events.outbox_errors"
"""Counter: failed uses of the outbox's database."""
OUTBOX_DEPTH = "workflow_events.outbox_depth"
"""Gauge: events that wait in the outbox."""
OUTBOX_OLDEST_AGE = "workflow_events.outbox_oldest_age_seconds"
"""Gauge: age of the oldest of them, in seconds."""
OUTBOX_PARKED = "workflow_events.outbox_parked"
"""Gauge: parked events."""
RELAYS_AT_WORK = "workflow_events.relays_at_work"
"""Gauge: relays of this outbox that have been heard of lately, in any process and on any host."""

CONSUMED = "workflow_events.consumed"
"""Counter: events that a consumer has handled."""
POISON = "workflow_events.poison"
"""Counter: messages that are no workflow event, skipped or sent to the dead-letter topic."""
REPEATED = "workflow_events.repeated"
"""Counter: events passed over because they had been handled already."""
DEAD_LETTERED = "workflow_events.dead_lettered"
"""Counter: messages that the dead-letter topic has confirmed."""

HOOK_TIME = "workflow_events.hook_time"
"""Timer: how long the listener kept the process whose hook it is, by ``hook``."""


class Metrics(Protocol):
    """Where counts go. Implementations must be quick and must not raise."""

    def incr(self, name: str, count: int = 1, tags: Mapping[str, str] | None = None) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        ...

    def timing(self, name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        """Record how long something took."""
        ...


class NoMetrics:
    """Counts nothing."""

    def incr(self, name: str, count: int = 1, tags: Mapping[str, str] | None = None) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float) -> None:
        """Do nothing."""

    def timing(self, name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        """Do nothing."""
