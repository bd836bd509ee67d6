"""Delivery of a batch that brokers refuse as a whole, for what is wrong with one event or with its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow_workflow_events.errors import KafkaTimeoutError, WorkflowEventsError
from airflow_workflow_events.events.model import WorkflowEvent

Errors = Sequence[WorkflowEventsError | None]


def deliver_in_halves(
    events: Sequence[WorkflowEvent],
    deliver: Callable[[Sequence[WorkflowEvent]], Errors],
    is_of_batch: Callable[[WorkflowEventsError | None], bool],
    has_ended: Callable[[], bool],
) -> Errors:
    """Deliver; what is refused as a batch again in halves, so that only what is refused alone counts as such.

    Args:
        events: the events, in order.
        deliver: delivers some of them and returns for each why it failed, if it did.
        is_of_batch: whether an error may be about other events of the same batch.
        has_ended: whether no time is left. What is then still refused fails with a timeout, as nobody knows
            which of them is at fault.
    """
    errors = list(deliver(events))
    refused = [number for number, error in enumerate(errors) if is_of_batch(error)]
    if len(events) == 1 or not refused:
        return errors
    half = (len(refused) + 1) // 2
    for numbers in (refused[:half], refused[half:]):
        if not numbers:
            continue
        again: Errors
        if has_ended():
            again = [KafkaTimeoutError(f"no time to try fewer at once: {errors[numbers[0]]}")] * len(numbers)
        else:
            again = deliver_in_halves([events[one] for one in numbers], deliver, is_of_batch, has_ended)
        for number, error in zip(numbers, again, strict=True):
            errors[number] = error
    return errors
