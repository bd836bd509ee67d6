"""The listener: events of every DAG, without touching a DAG.

What changes a run's state is the scheduler's main thread, inside a transaction: a connection look-up there
crashes it, and whatever takes long stalls all scheduling. So these functions copy what is loaded, build the
event and append it to the outbox; the relay's thread does the rest. They never raise, as that would keep
other listeners from being called.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Mapping
from time import monotonic, perf_counter
from typing import Any

from airflow_workflow_events.compat import conf, hookimpl

from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import OutboxError, printable
from airflow_workflow_events.events.model import EventType, WorkflowEvent
from airflow_workflow_events.executors import advice_on_outbox
from airflow_workflow_events.forks import once_per_process
from airflow_workflow_events.lifecycle import rows
from airflow_workflow_events.lifecycle.choice import Choice
from airflow_workflow_events.lifecycle.reading import enum_value, get, text_or_none
from airflow_workflow_events.lifecycle.translate import lifecycle_event
from airflow_workflow_events.marked_dags import dag_of_row, run_of_task
from airflow_workflow_events.outbox.background import SILENCE_SECONDS, BackgroundRelay
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.relaying import METRICS, HandOver, background_relay, open_destination, outbox_of
from airflow_workflow_events.settings import Settings
from airflow_workflow_events.startup import tell_unless_told

log: logging.Logger = logging.getLogger(__name__)

# A process that ends still gets so long to deliver; what is left is in the outbox for others.
_STOP_SECONDS = 5.0
# A task's process, where no relay is at work, may be kept so long at its end.
_TASK_SECONDS = 3.0
_EMITTED_BY = "listener"

# Whether this is a process of a scheduler, a DAG processor or a triggerer, or a child of one.
_in_job = False


@hookimpl
def on_starting(component: object) -> None:
    """Start the relay's thread in a scheduler, a DAG processor or a triggerer."""
    global _in_job  # noqa: PLW0603 - the process's, like the component
    if _is_job(component):
        _in_job = True
        _guarded("on_starting", tell_unless_told)
        _guarded("on_starting", _start_relay)
        _guarded("on_starting", _advise)


@hookimpl
def before_stopping(component: object) -> None:
    """Deliver for a little while: what a task's process handed over, or what a relay's thread has to do."""
    _guarded("before_stopping", _stop_relay if _is_job(component) else _deliver_tasks_events)


@hookimpl
def on_dag_run_running(dag_run: object, msg: str) -> None:
    """Publish ``workflow.started``."""
    _guarded("on_dag_run_running", lambda: _run_changed(EventType.WORKFLOW_STARTED, dag_run, msg))


@hookimpl
def on_dag_run_success(dag_run: object, msg: str) -> None:
    """Publish ``workflow.completed``."""
    _guarded("on_dag_run_success", lambda: _run_changed(EventType.WORKFLOW_COMPLETED, dag_run, msg))


@hookimpl
def on_dag_run_failed(dag_run: object, msg: str) -> None:
    """Publish ``workflow.failed``."""
    _guarded("on_dag_run_failed", lambda: _run_changed(EventType.WORKFLOW_FAILED, dag_run, msg))


@hookimpl
def on_task_instance_running(task_instance: object) -> None:
    """Publish ``task.started``."""
    _guarded("on_task_instance_running", lambda: _task_changed(EventType.TASK_STARTED, task_instance))


@hookimpl
def on_task_instance_success(task_instance: object) -> None:
    """Publish ``task.completed``."""
    _guarded("on_task_instance_success", lambda: _task_changed(EventType.TASK_COMPLETED, task_instance))


@hookimpl
def on_task_instance_failed(task_instance: object, error: object) -> None:
    """Publish ``task.failed``, or ``task.retrying``, for which Airflow has no hook of its own."""

    def publish() -> None:
        retrying = enum_value(get(task_instance, "state")) == "up_for_retry"
        kind = EventType.TASK_RETRYING if retrying else EventType.TASK_FAILED
        _task_changed(kind, task_instance, error)

    _guarded("on_task_instance_failed", publish)


@hookimpl
def on_task_instance_skipped(task_instance: object) -> None:
    """Publish ``task.skipped``."""
    _guarded("on_task_instance_skipped", lambda: _task_changed(EventType.TASK_SKIPPED, task_instance))


def _advise() -> None:
    if advice := advice_on_outbox(conf.get("core", "executor"), _settings().outbox_url):
        log.warning("%s", advice)


def _guarded(hook: str, work: Callable[[], object]) -> None:
    started = perf_counter()
    try:
        work()
    except Exception as error:  # noqa: BLE001 - see above
        log.error("%s: no event was published: %s: %s", hook, type(error).__name__, error)
        METRICS.incr(names.FAILED, tags={"emitted_by": _EMITTED_BY})
    METRICS.timing(names.HOOK_TIME, perf_counter() - started, {"hook": hook})


def _run_changed(event_type: EventType, dag_run: object, msg: str) -> None:
    run = rows.loaded(dag_run)
    dag_id = str(run["dag_id"])
    if rows.is_temporary(run["run_id"]) or not _settings().selection.wants(event_type, dag_id, None):
        return
    dag = run.get("dag")
    if dag is None and not _in_job:
        dag = dag_of_row(dag_run, dag_id, run.get("created_dag_version_id"))
    choice = Choice.of(dag)
    if choice.is_off:
        return
    if not msg and event_type is not EventType.WORKFLOW_STARTED:
        msg = rows.unsaid_reason(_in_job)
    event = _event(event_type, rows.run_context(run, dag, msg))
    _start_relay().accept(event, Route(None, choice.topic), environment_is_default=True)


def _task_changed(event_type: EventType, task_instance: Any, error: object = None) -> None:
    dag_id, task_id = str(get(task_instance, "dag_id")), text_or_none(get(task_instance, "task_id"))
    selection = _settings().selection
    if rows.is_temporary(get(task_instance, "run_id")) or not selection.wants(event_type, dag_id, task_id):
        return
    # In a task's process it is the task runner's own, elsewhere a database row, which has no context.
    in_task = not rows.is_row(task_instance)
    if in_task:
        context = {**task_instance.get_template_context(), "exception": error}
        if event_type is EventType.TASK_STARTED and _goes_on_poking(context):
            return
    else:
        context = _context_of_row(task_instance, error)
    choice = Choice.of(context.get("dag"))
    if choice.is_off:
        return
    event = _event(event_type, context)
    route = Route(None, choice.topic or selection.task_topic)
    if in_task:
        _of_this_task().accept(event, route)
    else:
        _start_relay().accept(event, route, environment_is_default=True)


def _goes_on_poking(context: Mapping[str, Any]) -> bool:
    """Whether a sensor pokes again that frees its slot between pokes: its start was told at the first.

    Airflow runs the hook at each poke, with the time of this one as the start. Not every task that was
    rescheduled has told its start, as Airflow also reschedules one whose DAG it did not find.
    """
    return bool(context.get("task_reschedule_count")) and bool(get(context.get("task"), "reschedule"))


def _event(event_type: EventType, context: Mapping[str, Any]) -> WorkflowEvent:
    settings = _settings()
    return lifecycle_event(
        context, event_type, settings, outcome=None, environment=settings.environment, emitted_by=_EMITTED_BY
    )


def _context_of_row(task_instance: object, error: object) -> dict[str, Any]:
    """Return a context from a task instance's row, which the scheduler and the API server give."""
    ti = rows.loaded(task_instance)
    row = ti.get("dag_run")
    if row is None and not _in_job:
        row = run_of_task(task_instance)
    run = {} if row is None else rows.loaded(row)
    dag = get(ti.get("task"), "dag") or run.get("dag")
    if dag is None and not _in_job:
        dag = dag_of_row(task_instance, str(ti["dag_id"]), ti.get("dag_version_id"))
    return rows.task_context(ti, run, dag, error)


class _TasksEvents:
    """What the one task of this process has handed over, until its process ends."""

    def __init__(self) -> None:
        self._accepted: tuple[HandOver, WorkflowEvent] | None = None
        self._unaccepted: list[tuple[WorkflowEvent, Route]] = []

    def accept(self, event: WorkflowEvent, route: Route) -> None:
        """Put an event into the outbox, or keep it for a direct attempt at the end."""
        hand_over = HandOver(_outbox(), _EMITTED_BY)
        if hand_over.accept(event, route, environment_is_default=True):
            self._accepted = (hand_over, event)
        else:
            self._unaccepted.append((event, route))

    def deliver(self) -> None:
        """Attempt what the outbox did not accept, and what it did where no relay is at work."""
        deadline = monotonic() + _TASK_SECONDS
        if self._accepted is not None:
            hand_over, event = self._accepted
            hand_over.deliver_unless_relayed(event, deadline)
        for event, route in self._unaccepted:
            relay = Relay(_outbox(), open_destination, metrics=METRICS)
            [done] = relay.deliver_directly(route, [(event, True)], max(deadline - monotonic(), 0.1))
            relay.close()
            if not done:
                log.error("event %s is lost: neither the outbox nor Kafka took it", printable(event.event_id))
                METRICS.incr(names.FAILED, tags={"emitted_by": _EMITTED_BY})
        self._accepted, self._unaccepted = None, []


# A task's process is forked for it: what its parent may have accepted is the parent's to deliver.
_of_this_task = once_per_process(_TasksEvents)


def _deliver_tasks_events() -> None:
    for events in _of_this_task.take():
        events.deliver()


# Read once: options may be looked up in a secrets backend, which is nothing for the scheduler's thread.
_settings = once_per_process(Settings.load, inherited=True)


def _outbox() -> Outbox:
    outbox = outbox_of(_settings())
    if outbox is None:  # Settings sees to it
        raise LookupError("the listener needs an outbox")
    return outbox


@once_per_process
def _relay() -> BackgroundRelay:
    # Before the thread starts: a child that is forked while it imports would import the same twice.
    from airflow_workflow_events import hooks  # noqa: F401
    from airflow_workflow_events.kafka import destination  # noqa: F401

    relay = background_relay(_outbox())
    relay.start()
    atexit.register(_stop_relay)
    return relay


def _start_relay() -> BackgroundRelay:
    """Return this process's relay, started."""
    return _relay()


def _stop_relay() -> None:
    for relay in _relay.take():
        relay.stop(_STOP_SECONDS)
        if not _in_job:
            _tell_what_waits(relay.owner)


def _tell_what_waits(stopped: str) -> None:
    """Say what is left where nobody may come by: ``airflow dags test`` needs no scheduler, and ends."""
    try:
        outbox = _outbox()
        pending = outbox.totals().pending
        if not pending or set(outbox.relays(SILENCE_SECONDS)) - {stopped}:
            return
    except OutboxError as error:
        log.warning("what waits in the outbox is not known: %s", error)
        return
    log.warning(
        "%d event(s) wait in the outbox %s, and no relay is at work: start a scheduler, or run "
        "`python -m airflow_workflow_events relay`",
        pending,
        outbox.database.place,
    )


def _is_job(component: object) -> bool:
    """Whether a component is a scheduler, a DAG processor or a triggerer, rather than one task's process."""
    return type(component).__name__ == "Job"
