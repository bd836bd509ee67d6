"""The narrow port between the outbox and Kafka: what a relay needs to deliver, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from airflow_workflow_events.errors import WorkflowEventsError
from airflow_workflow_events.events.model import WorkflowEvent


class Destination(Protocol):
    """What delivers events: the narrow port between the outbox and Kafka."""

    @property
    def environment(self) -> str | None:
        """Replaces the environment of events that were accepted without knowing it; ``None`` to keep it."""
        ...

    def deliver(
        self, events: Sequence[WorkflowEvent], topic: str | None, timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        """Deliver events in order, within ``timeout`` seconds; return for each why it failed, if it did.

        After a :class:`KafkaTimeoutError` nothing of these events may be under way any more: what is behind
        them would else arrive first.
        """
        ...

    def abandon(self) -> None:
        """Give up what is under way; called from another thread to end a delivery early."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@runtime_checkable
class Renewable(Protocol):
    """A destination that knows whether it is still the one that opening it again would make."""

    def is_outdated(self) -> bool:
        """Look the connection up again; return whether it was changed. May raise as opening it does."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """A destination that knows what is wrong while it delivers."""

    def trouble(self) -> str | None:
        """Return what it last had trouble with in the delivery under way; from any thread."""
        ...


OpenDestination = Callable[[str | None], Destination]
"""Makes the destination of a connection; may raise anything, and the relay then tries again later."""
