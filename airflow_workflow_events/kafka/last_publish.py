"""One event, published by a producer that is closed right after: what is known of it at the end."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

from airflow_workflow_events.errors import KafkaTimeoutError
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.pending import timeout_error
from airflow_workflow_events.kafka.producer import WorkflowEventProducer
from airflow_workflow_events.kafka.reports import DeliveryReport

#: Until a topic that a client does not know yet counts as missing, in milliseconds: librdkafka's own 30 s are
#: longer than most callbacks may take, which could then not say why.
TOPIC_PATIENCE_MS = 5_000


def publish_and_close(
    producer: WorkflowEventProducer, event: WorkflowEvent, topic: str | None, timeout: float | None
) -> DeliveryReport:
    """Publish one event and close the producer, which gives up an event that was not confirmed in time.

    Args:
        producer: closed in any case.
        event: the event.
        topic: where to; ``None`` for the producer's topic.
        timeout: how long to wait for the broker's word, in seconds; ``None`` for as long as a delivery takes.

    Returns:
        The report. Where time ran out its error is a :class:`KafkaTimeoutError` that says whether the event
        had been sent, and so may have been written.

    Raises:
        WorkflowEventsError: the event could not be sent, as :meth:`WorkflowEventProducer.send` raises.
    """
    started = monotonic()
    try:
        future = producer.send(event, topic)
        with suppress(TimeoutError):
            return future.result(timeout)
        trouble = producer.trouble_since(started)
    finally:
        producer.close(timeout=0)
    target = topic or producer.topic
    if not future.done():
        return DeliveryReport(event.event_id, target, error=timeout_error(event.event_id, timeout, trouble))
    report = future.result()
    name = getattr(report.error, "name", None)
    reason = f" ({trouble})" if trouble else ""
    if name == "_PURGE_QUEUE":
        text = f"no broker took it within {timeout:.3g} s{reason}; it was not sent"
    elif name == "_PURGE_INFLIGHT":
        text = f"it was sent, but not confirmed within {timeout:.3g} s{reason}; it may have been written"
    else:
        return report
    return report._replace(error=KafkaTimeoutError(f"event {event.event_id}: {text}", name=name))
