"""What may carry secrets into an event: why a run or a task failed, and a run's conf. Masked and capped."""

from __future__ import annotations

import contextvars
import logging
import queue
import re
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import redact

from airflow_workflow_events.errors import EventValidationError
from airflow_workflow_events.events.json_values import to_json_value
from airflow_workflow_events.lifecycle.reading import RunIdentity, enum_value, get, text_or_none

log = logging.getLogger(__name__)

_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_TRACE_CHARACTERS = 16_000
# Names that Airflow would mask the value of, were it behind a key of a mapping.
_TELLING_NAME = (
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key"
    r"|private[_-]?key|credential|signature|authorization)"
    r"[\w-]{0,40}"  # bounded, as others below: a long text must not take quadratic time
)
_SCHEME = r"(?:(?:bearer|basic|token|apikey|negotiate|digest)\s{1,9})?"
_ASSIGNED = rf"{_TELLING_NAME}\\?[\"']?\s{{0,9}}(?:=>|[=:])\s{{0,9}}"
_PREFIX = r"[bfru]{0,2}"  # b'', rb''
# A text in quotes; the closing one may be missing, as in a message that was cut.
_QUOTED = r"(?:\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
# A list, a tuple, an object, or the arguments of SecretStr('...'). It goes on in the next line only with
# another text in quotes, so that an open bracket does not take the rest of a stack trace along.
_IN_BRACKETS = rf"[(\[{{](?:{_QUOTED}|[^)\]}}\"'\n]|\n(?=\s{{0,40}}{_PREFIX}[\"')\]}}]))*[)\]}}]?"
_LOOKS_SECRET = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A login in a URL, up to the last @ before the next URL: a password may hold one, and slashes.
        r"(://[^\s:/@]*:)(?:[^\s:]|:(?!//))+(?=@)",
        # A token in its place.
        r"(://)[^\s:/?#@]+(?=:?@)",
        # A private key in PEM, with its headers.
        r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)(?:[^-]|-(?!----END))+",
        # <name>value</name>
        rf"(<[\w:.-]{{0,40}}{_TELLING_NAME}(?:\s[^<>]{{0,200}})?>(?:<!\[CDATA\[)?)[^<]+",
        # name="value", "name": "value", in JSON within JSON \"name\": \"value\", where a quote is \\\"
        rf"({_ASSIGNED}{_PREFIX}(\\?(?:\"{{3}}|'{{3}}|[\"'])){_SCHEME})(?:(?!\2)(?:(?:\\\\)?\\.|[^\\\n]))+",
        # name=value, name: value, name=["value"], name=Type("value")
        rf"({_ASSIGNED}{_SCHEME})(?!{_PREFIX}\\?[\"'])(?:[^\s\"',;&()\[\]{{}}]|{_IN_BRACKETS})+",
        # A pair: ("name", "value").
        rf"({_TELLING_NAME}[\"'],\s{{0,9}}){_PREFIX}{_QUOTED}",
        # --name value
        rf"((?<!-)--[\w-]{{0,40}}{_TELLING_NAME}\s{{1,9}})(?!-)(?:{_QUOTED}|\S+)",
        r"(\bbearer\s{1,9})[\w.~+/=-]{8,}",
    )
)
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
    return {"type": None, "message": _capped(message, _MAX_MESSAGE_CHARACTERS), "stack_trace": None}


def exception_error(exception: object) -> dict[str, Any] | None:
    """Return type, message and stack trace of a task's exception, masked and capped; ``None`` for none."""
    if exception is None:
        return None
    if not isinstance(exception, BaseException):
        return {"type": None, "message": _safe(exception, _MAX_MESSAGE_CHARACTERS), "stack_trace": None}
    kind = type(exception)
    trace = "".join(traceback.format_exception(exception))
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "type": f"{module}{kind.__qualname__}",
        "message": _safe(exception, _MAX_MESSAGE_CHARACTERS),
        "stack_trace": _safe(trace, _MAX_TRACE_CHARACTERS),
    }


def _safe(message: object, characters: int) -> str | None:
    """Return a text without secrets, capped: what Airflow knows to be one, and what looks like one."""
    # Shortened before masking as well: masking takes time by length, in a callback that has a bound. The cut
    # lies well inside what the second shortening leaves out, so no secret is halved beyond recognition.
    text = _capped(text_or_none(message), 4 * characters)
    masked = str(redact(text or ""))
    for pattern in _LOOKS_SECRET:
        masked = pattern.sub(r"\1***", masked)
    return _capped(text_or_none(masked), characters)


def _capped(message: str | None, characters: int) -> str | None:
    if message is None or len(message) <= characters:
        return message
    head = characters // 3
    return f"{message[:head]} ...[shortened]... {message[head - characters :]}"


def allowed_conf(conf: object, keys: frozenset[str]) -> dict[str, Any] | None:
    """Return the part of a run's conf that ``[workflow_events] conf_keys`` allows to leave, masked."""
    if not isinstance(conf, Mapping) or not keys:
        return None
    allowed: dict[str, Any] = {}
    for key in keys & conf.keys():
        try:
            allowed[key] = to_json_value(conf[key], f"conf.{key}")
        except EventValidationError as error:  # dag.test() takes any object
            log.info("left out of the event: %s", error)
    redacted = redact(allowed)
    return dict(redacted) if isinstance(redacted, Mapping) and redacted else None
