"""A producer as the place where an outbox's relay delivers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from airflow_workflow_events.errors import KafkaTimeoutError, WorkflowEventsError
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.producer import WorkflowEventProducer

#: What a relay's producer needs so that the order of a run's events holds through any outage: an event leaves
#: the queue by being delivered, or together with everything behind it. librdkafka would else give events up
#: one by one as their time runs out, and deliver the next one if the broker came back at that moment.
#: A topic that does not exist is reported after five seconds in place of thirty: by then a broker that makes
#: topics by itself has done so.
RELAY_OPTIONS = {
    "message.timeout.ms": 0,
    "retries": 2_147_483_647,
    "topic.metadata.propagation.max.ms": 5_000,
}

_CLOSE_SECONDS = 0.0


class ProducerDestination:
    """Delivers through a producer made with :data:`RELAY_OPTIONS` in its ``config``.

    Args:
        producer: the producer; closed by :meth:`close`.
        environment: replaces the environment of events that were accepted without knowing it. Default: none.
        has_changed: looks up whether the connection was changed since. Default: never.
    """

    def __init__(
        self,
        producer: WorkflowEventProducer,
        environment: str | None = None,
        *,
        has_changed: Callable[[], bool] | None = None,
    ) -> None:
        self._producer = producer
        self._environment = environment
        self._has_changed = has_changed
        self._started = monotonic()

    @property
    def environment(self) -> str | None:
        """Replaces the environment of events that were accepted without knowing it."""
        return self._environment

    @property
    def topic(self) -> str:
        """Where events go that name no topic."""
        return self._producer.topic

    def is_outdated(self) -> bool:
        """Whether the connection was changed since; raises as looking it up does."""
        return self._has_changed is not None and self._has_changed()

    def deliver(
        self, events: Sequence[WorkflowEvent], topic: str | None, timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        """Publish events in order and return for each why it failed, if it did.

        Where time ran out, what is under way is given up before this returns, and the producer is closed.
        """
        started = self._started = monotonic()
        reports = self._producer.publish_events(events, topic, timeout)
        errors = [report.error for report in reports]
        if any(isinstance(error, KafkaTimeoutError) for error in errors):
            trouble = self._producer.trouble_since(started)
            self.close()
            reason = KafkaTimeoutError(
                f"no broker confirmed it within {timeout:.3g} s{f' ({trouble})' if trouble else ''}"
            )
            errors = [reason if isinstance(error, KafkaTimeoutError) else error for error in errors]
        return errors

    def trouble(self) -> str | None:
        """Return what the producer last had trouble with since the latest delivery began."""
        return self._producer.trouble_since(self._started)

    def abandon(self) -> None:
        """Give up what is under way; whoever waits in :meth:`deliver` gets failures at once."""
        self._producer.abandon()

    def close(self) -> None:
        """Close the producer without waiting."""
        self._producer.close(timeout=_CLOSE_SECONDS)
