"""The outbox and the relay as Airflow's processes use them: by its options, connections and metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING

from airflow_workflow_events.compat import Stats

from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import OutboxError, OutboxFullError, printable
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.forks import critical_section, once_per_process
from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from airflow_workflow_events.outbox.background import SILENCE_SECONDS, BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE, Bounds, Route
from airflow_workflow_events.outbox.gauges import report_gauges
from airflow_workflow_events.outbox.relay import Drained, Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.settings import Settings, default_outbox_file, is_default_outbox

if TYPE_CHECKING:
    from airflow_workflow_events.hooks import WorkflowEventHook
    from airflow_workflow_events.kafka.destination import ProducerDestination

log: logging.Logger = logging.getLogger(__name__)

# After an attempt that came to nothing a process leaves the events to the relay for a while: a DAG processor
# may have fifty callbacks to run before its time is up, and each would wait for the same brokers.
_SPARED_SECONDS = 30.0
# What others have left behind is delivered for so long, in seconds, by a process that ends otherwise.
_OTHERS_SECONDS = 3.0
_GAUGES_SECONDS = 10.0


class AirflowMetrics:
    """Counts through Airflow's Stats; broken metrics harm nobody."""

    def incr(self, name: str, count: int = 1, tags: Mapping[str, str] | None = None) -> None:
        """Add to a counter."""
        try:
            with critical_section():  # a metrics client has locks
                Stats.incr(name, count, tags=dict(tags or {}))
        except Exception:
            log.debug("could not count %s", name, exc_info=True)

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        try:
            with critical_section():
                Stats.gauge(name, value)
        except Exception:
            log.debug("could not set %s", name, exc_info=True)

    def timing(self, name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        """Record how long something took."""
        try:
            with critical_section():
                Stats.timing(name, timedelta(seconds=seconds), tags=dict(tags or {}))
        except Exception:
            log.debug("could not time %s", name, exc_info=True)


METRICS = AirflowMetrics()


def outbox_of(settings: Settings) -> Outbox | None:
    """Return this process's outbox, or ``None`` where ``[workflow_events] outbox_url`` names none.

    Raises:
        ConfigurationError: ``outbox_url`` cannot be used.
    """
    if settings.outbox_url is None:
        return None
    return _outbox(settings.outbox_url, settings.outbox_bounds, settings.topic)


def outbox_for_commands(settings: Settings) -> Outbox | None:
    """Do what :func:`outbox_of` does; where the listener is off, with the file that it had while it was on.

    Events may wait there.

    Raises:
        ConfigurationError: ``outbox_url`` cannot be used.
    """
    if settings.outbox_url is None and default_outbox_file().exists():
        settings = replace(settings, outbox_url=f"sqlite:///{default_outbox_file()}")
    return outbox_of(settings)


def _make_outbox(url: str, bounds: Bounds, topic: str) -> Outbox:
    # Only the default's folder is made: where another's does not exist, the option is mistyped.
    database = OutboxDatabase(url, strict_path=not is_default_outbox(url))
    # A listener and a callback tell the same end of a run, each as far as it knows.
    return Outbox(database, bounds, default_topic=topic, derived=LIFECYCLE_FIELDS)


# The database itself sees to it that a fork does not share connections.
_outbox = once_per_process(_make_outbox, inherited=True)


def route_to(settings: Settings, conn_id: str | None, topic: str | None) -> Route:
    """Return where an event goes: whoever names the default connection goes the way of those who name none.

    Events of one run keep their order within one route.

    Args:
        settings: the ``[workflow_events]`` options.
        conn_id: the connection; ``None`` for the default.
        topic: the topic; ``None`` for the connection's.
    """
    return Route(None if conn_id == settings.conn_id else conn_id, topic)


def open_destination(conn_id: str | None) -> ProducerDestination:
    """Return what delivers through an Airflow connection; raises as looking it up does."""
    from airflow_workflow_events.hooks import WorkflowEventHook
    from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination

    with critical_section():
        hook = WorkflowEventHook(conn_id or Settings.load().conn_id)
        environment = hook.fields.get("environment")
        # A broker that is away shows when something is delivered; until then it is no reason to look dead.
        # What it does not deliver stays in the outbox, and the relay says why, once.
        producer = hook.get_producer(connect=False, failure_log_level=logging.DEBUG, config=RELAY_OPTIONS)
        looked_up = fingerprint(hook)
    return ProducerDestination(
        producer,
        None if environment is None else str(environment),
        has_changed=lambda: fingerprint(WorkflowEventHook(hook.workflow_events_conn_id)) != looked_up,
    )


def fingerprint(hook: WorkflowEventHook) -> str:
    """Return what two looks at a connection have in common as long as nobody changes it, without its secrets.

    Of the connection as it is stored: the Kafka provider makes callbacks of some options, new ones each time.
    """
    found = hook.connection
    fields = (found.conn_type, found.host, found.port, found.login, found.password, found.schema, found.extra)
    return sha256(repr(fields).encode("utf-8", "surrogatepass")).hexdigest()


def background_relay(outbox: Outbox) -> BackgroundRelay:
    """Return a relay in a thread of its own, not started yet."""
    return BackgroundRelay(outbox, Relay(outbox, open_destination, metrics=METRICS), metrics=METRICS)


class HandOver:
    """Hands one event to the outbox, and delivers it at once where no relay is at work.

    Args:
        outbox: the outbox.
        emitted_by: who hands over, for the metrics.

    Attributes:
        accepted: whether the outbox has the event, so that it is delivered or visibly parked.
        delivered: whether the brokers have confirmed it already.
        relayed: whether a relay is at work; ``None`` where that is not known.
    """

    def __init__(self, outbox: Outbox, emitted_by: str) -> None:
        self._outbox = outbox
        self._emitted_by = emitted_by
        self.accepted: bool = False
        self.delivered: bool = False
        self.relayed: bool | None = None
        self._reason: str | None = None
        self._route = DEFAULT_ROUTE

    def accept(self, event: WorkflowEvent, route: Route, *, environment_is_default: bool) -> bool:
        """Put the event into the outbox; return whether that worked, after logging and counting if not."""
        tags = {"emitted_by": self._emitted_by}
        try:
            dropped = self._outbox.append(event, route, environment_is_default=environment_is_default)
        except OutboxError as error:
            log.error("event %s was not accepted by the outbox: %s", printable(event.event_id), error)
            METRICS.incr(
                names.DROPPED if isinstance(error, OutboxFullError) else names.OUTBOX_ERRORS, tags=tags
            )
            return False
        self.accepted = True
        self._route = route
        METRICS.incr(names.ACCEPTED, tags=tags)
        if dropped:
            log.error("the outbox was full: its %d oldest event(s) were dropped", dropped)
            METRICS.incr(names.DROPPED, dropped, tags)
        return True

    def deliver_unless_relayed(self, event: WorkflowEvent, deadline: float) -> None:
        """Deliver what the outbox has of the event's run until ``deadline``, unless a relay is at work.

        Then, for a few seconds, whatever else waits there: nobody else may ever come by. The event's own
        connection and topic come first, so that a cluster that is away takes no time from another's events.

        Args:
            event: the event that :meth:`accept` accepted.
            deadline: when to end, in seconds of the monotonic clock.
        """
        conn_id = self._route.conn_id
        try:
            self.look()
            if self.relayed or monotonic() < _spared_until.get(conn_id, 0.0):
                return
            relay = Relay(self._outbox, open_destination, log_troubles=False)
            try:
                done = Drained()
                relay.drain_route(self._route, done, deadline=deadline, key=event.ordering_key)
                self._reason = done.reason
                self.delivered = done.delivered > 0 and not done.failed
                if self.delivered:
                    relay.drain(deadline=min(deadline, monotonic() + _OTHERS_SECONDS))
            finally:
                relay.close()
        except OutboxError as error:
            log.warning("event %s waits in the outbox: %s", printable(event.event_id), error)
            return
        if not self.delivered:
            _spared_until[conn_id] = monotonic() + _SPARED_SECONDS

    def look(self) -> None:
        """Ask whether a relay is at work, and report the outbox's gauges if it is time.

        Where no relay is, nobody else does: an alert on events that wait needs them most then.

        Raises:
            OutboxUnavailableError: the outbox's database cannot be used.
        """
        global _next_gauges  # noqa: PLW0603 - the process's, like its metrics
        if monotonic() < _next_gauges:
            self.relayed = bool(self._outbox.relays(SILENCE_SECONDS))
            return
        _next_gauges = monotonic() + _GAUGES_SECONDS
        self.relayed = report_gauges(self._outbox, METRICS, SILENCE_SECONDS) > 0

    @property
    def whereabouts(self) -> str:
        """Where an accepted event is, and what delivers it, for the log."""
        if self.delivered:
            return "was published by way of the outbox"
        if self.relayed:
            return "is in the outbox, and a relay delivers it"
        if self.relayed is None:
            return "is in the outbox"
        reason = f" ({self._reason})" if self._reason else ""
        return (
            f"waits in the outbox{reason}, and no relay is at work: turn [workflow_events] listener on, or "
            "run `airflow workflow-events relay`"
        )


_next_gauges = 0.0
# By connection: what one cluster does not take says nothing of another.
_spared_until: dict[str | None, float] = {}
