"""The sensor: a task that waits for a workflow event."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_workflow_events.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_workflow_events.errors import ConfigurationError, KafkaError, printable
from airflow_workflow_events.events.filters import EventFilter, Names, failure_filter
from airflow_workflow_events.events.model import EventType
from airflow_workflow_events.events.templated import typed_conditions
from airflow_workflow_events.lifecycle.reading import text_or_none

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent
    from airflow_workflow_events.triggers import WorkflowEventTrigger

_DUE_RUN_TYPES = frozenset({"scheduled", "asset_triggered"})  # airflow.utils.types.DagRunType

# How much longer than the trigger Airflow waits for a deferred task.
_SPARE_SECONDS = 60.0
_PULL_SECONDS = 0.1
# The offsets before an end may hold no record (compaction, markers of transactions): a topic that has been
# quiet for so long is taken to be at its end. A client may need a second for the first record it reads.
_QUIET_SECONDS = 5.0
# A hundred years: what is counted from now on, or back from a run, stays within the calendar.
_LONGEST = dt.timedelta(days=36_525)


class WorkflowEventSensor(BaseSensorOperator):
    """Waits until a workflow event arrives, and pushes it.

    By default the task is deferred: it waits in the triggerer and takes no worker slot. All sensors that wait
    on one connection and topic share one consumer there.

    What came before the sensor started counts as well, from ``since`` on: by default from the moment at which
    its own DAG run was due, so that neither the order of the two matters nor an event of yesterday is taken
    for today's. What counts is the timestamp of the record: when it was sent, on the sender's clock.

    Args:
        workflow_id: name or glob (``*``, ``?``, ``[seq]``), or several of which one must match. Default
            ``None``: any. Templated.
        workflow_run_id: likewise. Templated.
        event_type: likewise. Default: ``"workflow.completed"``. Templated.
        source: likewise. Default: any. Templated.
        environment: likewise, of ``metadata.environment``. Default: any. Templated.
        data: conditions on ``payload.data``: a dotted path to the value it must have, or to operators, e.g.
            ``{"order.country": "DE", "rows": {"$gte": 100}}``; see
            :class:`~airflow_workflow_events.events.filters.EventFilter`. Templated: a text that reads as a
            number, ``true``, ``false`` or ``null`` stands for that value too.
        fail_on: event types of the same workflow, run, source and environment that fail the task at once,
            e.g. ``"workflow.failed"``: without retries, with the event's error in the message. An event that
            is waited for as well means failure. Default: none. Templated.
        since: what is too old to count: a ``datetime`` with a time zone, its ISO 8601 text, or a
            ``timedelta`` before the moment that is the default: for a run of the schedule, or that an asset
            has triggered, when it was due (its ``run_after``, which clearing does not change); for any other
            its start, as it may be about a past long before it. Templated.
        topic: the topic. Default: the connection's. Templated.
        workflow_events_conn_id: the connection. Default ``None``: ``[workflow_events] conn_id``. Templated.
        deferrable: whether to wait in the triggerer. Default: ``True``. Otherwise ``mode`` decides: with
            ``"poke"`` (Airflow's default) the task holds a worker slot and a consumer of its own until the
            event comes, and goes on within milliseconds; with ``"reschedule"`` it reads the topic from
            ``since`` to its end every ``poke_interval``.
        end_from_trigger: whether a deferred task ends where it waits, without being started again for its
            success: some seconds sooner, and without a worker slot, but also without its ``on_success``
            callbacks and listeners, and its XCom is the event's JSON as text, as Airflow 3.3 stores what a
            trigger pushes. Default: ``False``.
        **kwargs: as for every sensor: ``timeout``, ``soft_fail``, ``poke_interval``, ``mode``, ...

    Returns:
        The event as JSON, as the task's XCom.

    Raises:
        ConfigurationError: a parameter cannot be used, or a template was rendered to nothing; the message
            names it. Raised where the DAG file is parsed, if that can be seen there.
        AirflowFailException: an event of ``fail_on`` came.
        AirflowSensorTimeout: nothing came within ``timeout``.
    """

    template_fields: Sequence[str] = (
        "workflow_id",
        "workflow_run_id",
        "event_type",
        "source",
        "environment",
        "data",
        "fail_on",
        "since",
        "topic",
        "workflow_events_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json"}
    ui_color = "#e8f0fa"

    def __init__(
        self,
        *,
        workflow_id: Names = None,
        workflow_run_id: Names = None,
        event_type: Names = EventType.WORKFLOW_COMPLETED.value,
        source: Names = None,
        environment: Names = None,
        data: Mapping[str, Any] | None = None,
        fail_on: Names = None,
        since: dt.datetime | dt.timedelta | str | None = None,
        topic: str | None = None,
        workflow_events_conn_id: str | None = None,
        deferrable: bool = True,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_timeout(kwargs.get("timeout"))
        super().__init__(**kwargs)
        _check_timeout(self.timeout)  # it may be Airflow's option
        given = {
            "workflow_id": workflow_id,
            "workflow_run_id": workflow_run_id,
            "event_type": event_type,
            "source": source,
            "environment": environment,
            "data": data,
        }
        _check_early(given, fail_on, since)
        if end_from_trigger and not deferrable:
            raise ConfigurationError(
                "end_from_trigger needs deferrable=True: there is no trigger to end the task"
            )
        self._given_data = data
        self._given = {name for name, value in {**given, "topic": topic}.items() if value is not None}
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self.event_type = event_type
        self.source = source
        self.environment = environment
        self.data = data
        self.fail_on = fail_on
        self.since = since
        self.topic = topic
        self.workflow_events_conn_id = workflow_events_conn_id
        self.deferrable = deferrable
        # Not under its public name: Airflow refuses a DAG with a task that has an attribute
        # ``end_from_trigger`` as soon as any listener is registered (airflow.dag_processing.dagbag).
        self._end_from_trigger = end_from_trigger
        self._trouble: str | None = None
        self._deadline = 0.0  # on the clock of the process that executes it

    def execute(self, context: Context) -> Any:
        """Wait, in the triggerer or here, and return the event."""
        trigger = self._trigger(context)
        self.log.info("Waiting for %s, for up to %g s.", trigger, self.timeout)
        if not self.deferrable:
            self._deadline = monotonic() + self.timeout
            return self._execute_here(context)
        self._look_up(trigger.workflow_events_conn_id)
        return self.defer(
            trigger=trigger,
            method_name="execute_complete",
            # The trigger gives up by itself, in time to start the task again before Airflow fails it.
            timeout=dt.timedelta(seconds=self.timeout + _SPARE_SECONDS),
        )

    def _look_up(self, conn_id: str) -> None:
        """Fail here where the connection cannot be used: of a trigger's error Airflow tells no reason."""
        from airflow_workflow_events.hooks import WorkflowEventHook
        from airflow_workflow_events.waiting import absence_told

        try:
            with absence_told(conn_id), WorkflowEventHook(conn_id).get_consumer(connect=False):
                pass
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a secrets backend that is away now may answer the trigger
            self.log.warning("Connection %r could not be looked up; the trigger does: %s", conn_id, error)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return the event that the trigger has found, or fail for it."""
        if event.get("timed_out"):
            message = f"nothing of what is waited for came within {self.timeout:g} s"
            raise AirflowSensorTimeout(_with_trouble(message, event.get("trouble")))
        return self._judge(event["event"], failed=event["failed"])

    def _execute_here(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            if self._trouble is None:
                raise
            raise AirflowSensorTimeout(_with_trouble(str(error), self._trouble)) from None
        except AirflowSkipException as skip:
            raise _skip_with_reason(skip, self._trouble) from skip.__cause__

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Do what every sensor does when its trigger has fired, and have a skipped task say why."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException as skip:
            raise _skip_with_reason(skip) from skip.__cause__

    def poke(self, context: Context) -> PokeReturnValue:
        """Read the topic from ``since``: to its end, or in mode ``poke`` until the sensor's timeout."""
        from airflow_workflow_events.hooks import WorkflowEventHook

        self._trouble = None  # the last poke's may be over
        trigger = self._trigger(context)
        options: dict[str, Any] = {"topic": trigger.topic} if trigger.topic else {}
        hook = WorkflowEventHook(trigger.workflow_events_conn_id)
        try:
            with hook.get_consumer(start_from=trigger.start, **options) as consumer:
                for received in self._read(consumer.intake):
                    if (found := trigger.judge(received)) is not None:
                        return PokeReturnValue(True, self._judge(found["event"], failed=found["failed"]))
                connection = consumer.intake.client.connection
                self._trouble = connection.trouble_since(0) if connection.is_troubled else None
        except KafkaError as error:
            self._trouble = str(error)
            if not error.retriable:
                raise
            self.log.warning("The topic cannot be read for now; trying again: %s", error)
        return PokeReturnValue(False)

    def _read(self, intake: Intake) -> Iterator[ReceivedEvent]:
        """Yield events up to where the topic ends now, or in mode ``poke`` until the sensor's timeout."""
        from airflow_workflow_events.kafka.intake import ReceivedEvent
        from airflow_workflow_events.kafka.positions import StartFrom

        to_its_end = self.reschedule or monotonic() >= self._deadline  # with no timeout, or poked by a test
        # On a busy topic there is always one more.
        ends = intake.client.offsets_of(StartFrom.LATEST) if to_its_end else {}
        reached = dict(intake.client.begun)
        quiet_at = monotonic() + _QUIET_SECONDS

        def is_over() -> bool:
            if not to_its_end:
                return monotonic() >= self._deadline
            return monotonic() >= quiet_at or all(reached.get(place, 0) >= end for place, end in ends.items())

        while not is_over():
            for taken in intake.pull(_PULL_SECONDS):
                reached[taken.topic, taken.partition] = taken.offset + 1
                quiet_at = monotonic() + _QUIET_SECONDS
                if isinstance(taken, ReceivedEvent):
                    yield taken

    def _judge(self, event: dict[str, Any], *, failed: bool) -> dict[str, Any]:
        name = printable(f"{event['event_type']} of {event['workflow_id']}, run {event['workflow_run_id']}")
        event_id = printable(event["event_id"])
        if failed:
            reason = printable(_reason(event["payload"]["data"]))
            raise AirflowFailException(f"{name} (event {event_id}): {reason}")
        self.log.info("%s has come: event %s.", name, event_id)
        if replaced := event["metadata"].get("replaced"):
            self.log.warning(
                "The event held what Airflow cannot store; replaced: %s.",
                printable(", ".join(map(str, replaced))),
            )
        return event

    def _trigger(self, context: Context) -> WorkflowEventTrigger:
        # Late, as it loads the triggerer's modules: whoever parses a DAG file needs none.
        from airflow_workflow_events.triggers import WorkflowEventTrigger

        return WorkflowEventTrigger(
            workflow_id=_names(self._rendered("workflow_id")),
            workflow_run_id=_names(self._rendered("workflow_run_id")),
            event_type=_names(self._rendered("event_type")),
            source=_names(self._rendered("source")),
            environment=_names(self._rendered("environment")),
            data=typed_conditions(self._given_data, self._rendered("data"), _is_template),
            fail_on=_names(self.fail_on),
            topic=self._rendered("topic"),
            start_from=self._since(context).isoformat(),
            workflow_events_conn_id=text_or_none(self.workflow_events_conn_id),
            once=True,
            end_from_trigger=self._end_from_trigger,
            until=(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.timeout)).isoformat(),
        )

    def _rendered(self, name: str) -> Any:
        """Return a parameter, unless it was given and became nothing: that would wait for anything."""
        value = getattr(self, name)
        if value is None and name in self._given:
            raise ConfigurationError(f"{name} was given, but its template was rendered to None")
        return value

    def _since(self, context: Context) -> dt.datetime:
        since = _check_since(self.since)
        if isinstance(since, dt.datetime):
            return since
        due = _due(context["dag_run"])
        return due if since is None else due - since


def _with_trouble(message: str, trouble: str | None) -> str:
    return f"{message} (Kafka said last: {trouble})" if trouble else message


def _skip_with_reason(skip: AirflowSkipException, trouble: str | None = None) -> AirflowSkipException:
    """Return Airflow's skip of a failed sensor with what it failed of: Airflow logs the text alone."""
    if skip.__cause__ is None:
        return AirflowSkipException(_with_trouble(str(skip), trouble))
    return AirflowSkipException(f"{str(skip).rstrip('.')}: {printable(skip.__cause__)}")


def _due(run: Any) -> dt.datetime:
    """Return the moment from which a run may look for what it waits for."""
    started: dt.datetime = run.start_date or dt.datetime.now(dt.UTC)
    # It may be queued for long while the other one completes. A backfill, or a run that was triggered for a
    # date, was due in a past whose events are others'.
    return min(run.run_after, started) if run.run_type in _DUE_RUN_TYPES else started


def _check_since(since: object) -> dt.datetime | dt.timedelta | None:
    if isinstance(since, str):
        try:
            since = dt.datetime.fromisoformat(since.strip())
        except ValueError:
            raise ConfigurationError(
                f"since is {since!r}: use a time in ISO 8601 with a time zone, or a timedelta"
            ) from None
    if isinstance(since, dt.datetime):
        if since.tzinfo is None:
            raise ConfigurationError(
                f"since is {since.isoformat()}, which has no time zone: use e.g. datetime(..., tzinfo=UTC)"
            )
        return since
    if isinstance(since, dt.timedelta):
        if since < dt.timedelta(0):
            raise ConfigurationError(f"since is {since}: say how long before as a positive timedelta")
        if since > _LONGEST:
            raise ConfigurationError(f"since is {since}: use a timedelta of at most {_LONGEST.days:,} days")
        return since
    if since is not None:
        raise ConfigurationError(f"since is {since!r}: use a datetime, its ISO text, or a timedelta")
    return None


def _check_timeout(timeout: object) -> None:
    """Refuse what leads out of the calendar. What else is wrong with it Airflow says."""
    seconds = timeout.total_seconds() if isinstance(timeout, dt.timedelta) else timeout
    # Not ">", which does not hold for NaN.
    if isinstance(seconds, int | float) and not seconds <= _LONGEST.total_seconds():
        raise ConfigurationError(f"timeout is {timeout}: wait for at most {_LONGEST.days:,} days")


def _check_early(filters: Mapping[str, Any], fail_on: Any, since: Any) -> None:
    """Refuse what cannot be used, while the DAG file is parsed: as far as nothing is a template."""
    EventFilter(**{name: value for name, value in filters.items() if _is_final(value)})
    if _is_final(fail_on):
        failure_filter(fail_on)
    if _is_final(since):
        _check_since(since)


def _is_template(value: object) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _is_final(value: object) -> bool:
    """Whether rendering leaves a value as it is. What is no plain value may be another task's result."""
    if isinstance(value, Mapping):
        return all(map(_is_final, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_final, value))
    if isinstance(value, str):
        return not _is_template(value)
    return isinstance(value, int | float | dt.datetime | dt.timedelta | None)


def _names(value: Any) -> Names:
    """Return a name or names: a template may be rendered to a number."""
    if value is None or isinstance(value, str):
        return value
    return [str(one) for one in value] if isinstance(value, Iterable) else str(value)


def _reason(data: Mapping[str, Any]) -> str:
    """Return what an event of failure says of its reason."""
    error = data.get("error")
    if isinstance(error, Mapping):
        said = [str(error[name]) for name in ("type", "message") if error.get(name) is not None]
        if said:
            return ": ".join(said)
    elif error:
        return str(error)
    return str(data.get("reason") or "no reason given")
