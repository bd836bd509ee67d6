"""Why a run or a task failed, and what of a run's conf may leave."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from airflow_workflow_events.errors import EventValidationError
from airflow_workflow_events.events.json_values import to_json_value
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.lifecycle.reading import RunIdentity, enum_value, get, text_or_none

log = logging.getLogger(__name__)

_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_TRACE_CHARACTERS = 16_000
#: How long Airflow's answer about failed tasks is waited for, unless the caller has another bound.
QUESTION_SECONDS = 2.0
_FAILED = frozenset({"failed", "upstream_failed"})


def failed_tasks(
    context: Mapping[str, Any], identity: RunIdentity, patience_seconds: float
) -> list[str] | None:
    """Return the ids of the run's failed tasks, or ``None`` where Airflow cannot be asked.

    The context of a DAG callback names only the task that decided the run. Airflow's supervisor answers this
    question in the DAG processor and in tasks; under ``dag.test()`` and in a triggerer nobody may.
    """
    ask = get(context.get("ti"), "get_task_states")
    if not callable(ask):
        return None
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def question() -> None:
        try:
            answers.put(ask(identity.workflow_id, run_ids=[identity.workflow_run_id]))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            answers.put(error)

    try:
        # A busy DAG processor can take longer to answer than the callback may take in all.
        context_of_logs = contextvars.copy_context()
        threading.Thread(
            target=context_of_logs.run, args=(question,), name="workflow-events-question", daemon=True
        ).start()
        # An exception as the answer has no get(), and is logged below as whatever went wrong.
        states = answers.get(timeout=patience_seconds)
        of_run = states.get(identity.workflow_run_id, {})
        failed = (text_or_none(task) for task, state in of_run.items() if enum_value(state) in _FAILED)
        return sorted(filter(None, failed))
    except Exception as error:  # noqa: BLE001 - this adds to the event and must never cost it
        log.info("could not ask Airflow for the failed tasks: %s", type(error).__name__)
        return None


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
    trace = "".join(traceback.format_exception(exception))
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "type": f"{module}{kind.__qualname__}",
        "message": _text(exception, _MAX_MESSAGE_CHARACTERS),
        "stack_trace": _text(trace, _MAX_TRACE_CHARACTERS),
    }


def with_capped_error(event: WorkflowEvent) -> WorkflowEvent:
    """Return the event with the error's message and stack trace shortened to what an event carries."""
    error = event.payload.data.get("error")
    if not isinstance(error, dict):
        return event
    capped = {
        **error,
        "message": _capped(error.get("message"), _MAX_MESSAGE_CHARACTERS),
        "stack_trace": _capped(error.get("stack_trace"), _MAX_TRACE_CHARACTERS),
    }
    if capped == error:
        return event
    payload = event.payload.model_copy(update={"data": {**event.payload.data, "error": capped}})
    return event.model_copy(update={"payload": payload})


def _text(message: object, characters: int) -> str | None:
    # The cut lies well inside what the later one leaves out.
    return _capped(text_or_none(message), 4 * characters)


def _capped(message: str | None, characters: int) -> str | None:
    if message is None or len(message) <= characters:
        return message
    head = characters // 3
    return f"{message[:head]} ...[shortened]... {message[head - characters :]}"


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
