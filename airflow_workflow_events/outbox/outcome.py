"""What becomes of the entries of one delivery: removed, parked, or attempted again, later or at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_workflow_events.errors import (
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    OutboxUnavailableError,
    ProducerClosedError,
    WorkflowEventsError,
)
from airflow_workflow_events.outbox.entries import OutboxEntry

# What a broker says of the records themselves, or of the topic's name. Anything else it may say, now or in a
# later version, is about itself or the cluster, and the same event may get through later.
_OF_THE_RECORDS = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "INVALID_MSG_SIZE",
        "RECORD_LIST_TOO_LARGE",
        "INVALID_RECORD",
        "INVALID_TIMESTAMP",
        "POLICY_VIOLATION",
    }
)
_BAD_TOPIC = frozenset({"TOPIC_EXCEPTION"})
# Somebody may create the topic; an authorizer says the same of a topic that may not be seen.
_MISSING_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})
# Somebody else gave up what was under way in the same producer.
_GIVEN_UP = frozenset({"_PURGE_QUEUE", "_PURGE_INFLIGHT"})


@dataclass(slots=True)
class Outcome:
    """What becomes of the entries of one delivery.

    Attributes:
        delivered: places of those that were confirmed.
        parked: those that can never be delivered as they are, with the reason.
        failed: those that are attempted again, with the error.
        again: places of those that are attempted again at once: this was no answer to them.
        was_refused: whether a permission was missing.
    """

    delivered: list[int]
    parked: list[tuple[OutboxEntry, str]]
    failed: list[tuple[OutboxEntry, WorkflowEventsError]]
    again: list[int]
    was_refused: bool = False

    @classmethod
    def of(
        cls,
        entries: list[OutboxEntry],
        errors: Sequence[WorkflowEventsError | None],
        unreadable: list[tuple[OutboxEntry, str]],
        is_fresh: bool,
    ) -> Outcome:
        """Return what becomes of entries whose delivery had these errors.

        Args:
            entries: the entries.
            errors: for each why it was not delivered; ``None`` where it was.
            unreadable: entries that are no events, with the reason.
            is_fresh: whether the producer knew nothing from before, so that its refusals hold.
        """
        outcome = cls([], list(unreadable), [], [])
        for entry, error in zip(entries, errors, strict=True):
            outcome.was_refused |= isinstance(error, KafkaAuthorizationError)
            if error is None:
                outcome.delivered.append(entry.seq)
            elif not is_fresh and _is_no_answer(error):
                outcome.again.append(entry.seq)
            elif is_hopeless(error):
                outcome.parked.append((entry, str(error)))
            else:
                outcome.failed.append((entry, error))
        return outcome


def is_hopeless(error: WorkflowEventsError) -> bool:
    """Whether an event can never be delivered as it is, as opposed to not now or not by this connection.

    Of Kafka's errors these are the ones on a list, whether or not they call themselves retriable.
    """
    if isinstance(error, KafkaAuthorizationError):
        return not error.retriable
    if isinstance(error, KafkaError):
        return error.name in _OF_THE_RECORDS | _BAD_TOPIC
    return not error.retriable and not isinstance(error, OutboxUnavailableError | ProducerClosedError)


def is_about_records(error: WorkflowEventsError | None) -> bool:
    """Whether a broker refused a batch for what is wrong with one of its records, or with its size."""
    return isinstance(error, KafkaError) and error.name in _OF_THE_RECORDS


def may_be_of_batch(error: WorkflowEventsError | None) -> bool:
    """Whether one event may be the cause of an answer to all: any refusal that says nothing else."""
    return is_about_records(error) or (
        isinstance(error, KafkaError)
        and not isinstance(error, KafkaAuthenticationError | KafkaAuthorizationError | KafkaConnectionError)
        and not error.retriable
        and error.name not in _BAD_TOPIC | _MISSING_TOPIC
    )


def _is_no_answer(error: WorkflowEventsError) -> bool:
    """Whether a producer in use says what has nothing to do with this event or is no longer so.

    It is shared, and another route may have given up what was under way; and what the brokers refused once,
    an idempotent producer remembers, although it was granted since.
    """
    if isinstance(error, KafkaAuthorizationError | ProducerClosedError):
        return True
    return getattr(error, "name", None) in _GIVEN_UP
