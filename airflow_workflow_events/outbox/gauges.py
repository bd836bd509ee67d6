"""The gauges of an outbox, for whoever looks at it: a relay, or a process that only appends."""

from __future__ import annotations

from airflow_workflow_events import metrics as names
from airflow_workflow_events.metrics import Metrics
from airflow_workflow_events.outbox.store import Outbox


def report_gauges(outbox: Outbox, metrics: Metrics, silence_seconds: float) -> int:
    """Tell how much waits, for how long, and how many relays are at work; return the last.

    Args:
        outbox: the outbox.
        metrics: where to tell it.
        silence_seconds: a relay not heard of for so long, in seconds, is taken for dead.

    Raises:
        OutboxUnavailableError: the database cannot be used.
    """
    totals = outbox.totals()
    relays = len(outbox.relays(silence_seconds))
    metrics.gauge(names.OUTBOX_DEPTH, totals.pending)
    metrics.gauge(names.OUTBOX_PARKED, totals.parked)
    metrics.gauge(names.OUTBOX_OLDEST_AGE, totals.oldest_age_seconds or 0.0)
    metrics.gauge(names.RELAYS_AT_WORK, relays)
    return relays
