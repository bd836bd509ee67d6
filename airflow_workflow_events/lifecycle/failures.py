"""Why a run or a task failed, and what of a run's conf may leave."""

from __future__ import annotations

import contextvars
import logging
import queue
import re
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from airflow_workflow_events.errors import EventValidationError
from airflow_workflow_events.events.json_values import to_json_value
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.lifecycle.reading import RunIdentity, enum_value, get, text_or_none, told

log: logging.Logger = logging.getLogger(__name__)

_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_TRACE_CHARACTERS = 16_000
_SHORTENED = " ...[shortened]... "
_NOT_TOLD = "(the error's text cannot be shown: telling it raises another)"
_SEAM = " ...[shortened before masking]... "
#: How long Airflow's answer about failed tasks is waited for, unless the caller has another bound.
QUESTION_SECONDS = 2.0
_FAILED = frozenset({"failed", "upstream_failed"})


def failed_tasks(
    context: Mapping[str, Any], identity: RunIdentity, patience_seconds: float
) -> list[str] | None:
    """Return the ids of the run's failed tasks, or ``None`` where Airflow cannot be asked.

    An instance of a mapped task is named ``task_id[map_index]``. The context of a DAG callback names only the
    task that decided the run. Airflow's supervisor answers this question in the DAG processor and in tasks;
    under ``dag.test()`` and in a triggerer nobody may.
    """
    ask = get(context.get("ti"), "get_task_states")
    if not callable(ask):
        return None
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def states(**criteria: Any) -> dict[str, Any]:
        run_id = identity.workflow_run_id
        of_run: dict[str, Any] = ask(identity.workflow_id, run_ids=[run_id], **criteria).get(run_id, {})
        return of_run

    def question() -> None:
        try:
            answers.put(_failed_ids(states, context))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            answers.put(error)

    try:
        # A busy DAG processor can take longer to answer than the callback may take in all.
        context_of_logs = contextvars.copy_context()
        threading.Thread(
            target=context_of_logs.run, args=(question,), name="workflow-events-question", daemon=True
        ).start()
        answer = answers.get(timeout=patience_seconds)
    except Exception as error:  # noqa: BLE001 - this adds to the event and must never cost it
        answer = error
    if isinstance(answer, Exception):
        late = isinstance(answer, queue.Empty)
        reason = f"no answer within {patience_seconds:.1f} s" if late else type(answer).__name__
        log.info("the event does not name the failed tasks, for which Airflow was asked: %s", reason)
        return None
    return sorted(answer)


def _failed_ids(states: Callable[..., dict[str, Any]], context: Mapping[str, Any]) -> set[str]:
    """Return the ids of the failed tasks.

    Airflow calls an instance of a mapped task ``task_id_INDEX``, which may be another task's id as well.
    """
    tasks = get(context.get("dag"), "task_dict") or {}
    failed: set[str] = set()
    for name, state in states().items():
        base, _, index = str(name).rpartition("_")
        of_mapped = f"{base}[{index}]" if index.isdecimal() and _is_mapped(tasks.get(base)) else None
        if of_mapped is not None and name in tasks:  # the state of either may have displaced the other's
            own = _state_of(name, name, states)
            others = _state_of(name, base, states)
            if own is None and others is None and _has_failed(state):
                ti = context.get("ti")
                failed.add(name if get(ti, "task_id") == name else of_mapped)
            failed |= {one for one, its in ((name, own), (of_mapped, others)) if _has_failed(its)}
        elif _has_failed(state) and (text := text_or_none(of_mapped or name)) is not None:
            failed.add(text)
    return failed


def _state_of(name: str, task_id: str, states: Callable[..., dict[str, Any]]) -> Any:
    """Return the state that Airflow gives under a name for one task; ``None`` where it does not tell."""
    of_task = states(task_ids=[task_id])
    own_names = re.compile(re.escape(task_id) + r"(_[0-9]+)?")
    return of_task.get(name) if all(map(own_names.fullmatch, of_task)) else None


def _has_failed(state: object) -> bool:
    return enum_value(state) in _FAILED


def _is_mapped(task: object) -> bool:
    """Whether a task has instances with an index: by itself, or through a group."""
    group = get(task, "get_closest_mapped_task_group")
    return bool(get(task, "is_mapped")) or (callable(group) and group() is not None)


def run_error(reason: str | None, failed: list[str] | None) -> dict[str, Any]:
    """Return why a run failed. Airflow does not give a DAG callback the exception of a task."""
    message = f"failed tasks: {', '.join(failed)}" if failed else reason
    return {"type": None, "message": message, "stack_trace": None}


def exception_error(exception: object) -> dict[str, Any] | None:
    """Return type, message and stack trace of a task's exception; ``None`` for none.

    They are shortened to what masking may take the time for, and to what an event carries by
    :func:`with_capped_error` only after it: no secret must be halved beyond recognition.
    """
    if exception is None:
        return None
    if not isinstance(exception, BaseException):
        return {"type": None, "message": _text(exception, _MAX_MESSAGE_CHARACTERS), "stack_trace": None}
    kind = type(exception)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    name = f"{module}{kind.__qualname__}"
    message = told(lambda: str(exception))
    return {
        "type": name,
        "message": _text(_NOT_TOLD if message is None else message, _MAX_MESSAGE_CHARACTERS),
        "stack_trace": _text(_trace_of(exception, name), _MAX_TRACE_CHARACTERS),
    }


def _trace_of(exception: BaseException, name: str) -> str:
    """Return the stack trace; without the exception's own words where these, or its notes, cannot be had."""
    trace = told(lambda: "".join(traceback.format_exception(exception)))
    if trace is not None:
        return trace
    frames = told(lambda: "".join(traceback.format_tb(exception.__traceback__)))
    return f"Traceback (most recent call last):\n{frames or ''}{name}: {_NOT_TOLD}\n"


def with_capped_error(event: WorkflowEvent) -> WorkflowEvent:
    """Return the event with the error's message and stack trace shortened to what an event carries."""
    error = event.payload.data.get("error")
    if not isinstance(error, dict):
        return event
    capped = {
        **error,
        "message": _without_seam(error.get("message"), _MAX_MESSAGE_CHARACTERS),
        "stack_trace": _without_seam(error.get("stack_trace"), _MAX_TRACE_CHARACTERS),
    }
    if capped == error:
        return event
    payload = event.payload.model_copy(update={"data": {**event.payload.data, "error": capped}})
    return event.model_copy(update={"payload": payload})


def _text(message: object, characters: int) -> str | None:
    # The cut lies well inside what the later one leaves out, which takes out so much at each side of it.
    return _capped(text_or_none(message), 4 * characters, _SEAM)


def _capped(message: str | None, characters: int, mark: str = _SHORTENED) -> str | None:
    if message is None or len(message) <= characters:
        return message
    head = characters // 3
    return f"{message[:head]}{mark}{message[head - characters :]}"


def _without_seam(message: str | None, characters: int) -> str | None:
    """Shorten a masked text, without what lies beside the cut that was made before masking.

    Masking does not recognise half of a secret there, and where it made the rest shorter that would show.
    """
    before, seam, after = (message or "").partition(_SEAM)
    if not seam:
        return _capped(message, characters)
    return _capped(f"{before[:-characters]}{_SHORTENED}{after.rpartition(_SEAM)[2][characters:]}", characters)


def allowed_conf(conf: object, keys: frozenset[str]) -> dict[str, Any] | None:
    """Return the part of a run's conf that ``[workflow_events] conf_keys`` allows to leave."""
    if not isinstance(conf, Mapping) or not keys:
        return None
    allowed: dict[str, Any] = {}
    for key in keys & conf.keys():
        try:
            allowed[key] = to_json_value(conf[key], f"conf.{key}")
        except EventValidationError as error:  # dag.test() takes any object
            log.info("left out of the event: %s", error)
    return allowed or None
