"""Handlers that are called with events: how often they are tried, after which pauses, and what ends it."""

from __future__ import annotations

import inspect
import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from airflow_workflow_events.errors import ConfigurationError, printable, text_of
from airflow_workflow_events.kafka.config import check_whole_number

log: logging.Logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def check_handler(handler: object) -> None:
    """Raise :class:`ConfigurationError` unless a handler can be called with an event."""
    if not callable(handler):
        raise ConfigurationError(f"handler is {handler!r}: use a function that takes an event")
    try:
        inspect.signature(handler).bind(None)
    except TypeError as error:
        raise ConfigurationError(f"handler {handler!r} does not take an event alone: {error}") from None
    except ValueError:
        return  # some functions that are written in C do not say what they take


def check_result(result: object, *, is_awaited: bool) -> None:
    """Raise where what a handler has returned shows that it is one for the other consumer.

    Args:
        result: what it returned.
        is_awaited: whether results are awaited. Where they are not, an ``async`` handler has done nothing.

    Raises:
        ConfigurationError: it can be awaited where nobody does, or cannot where it would be; or it is a
            generator, of whose code nothing has run.
    """
    if not is_awaited and (inspect.isgenerator(result) or inspect.isasyncgen(result)):
        raise ConfigurationError(
            f"the handler returned a {type(result).__name__}, of whose code nothing has run: "
            "use a handler without yield"
        )
    if inspect.isawaitable(result) is is_awaited:
        return
    if inspect.iscoroutine(result):
        result.close()  # or Python would warn that it was never awaited
    raise ConfigurationError(
        f"the handler returned {type(result).__name__}, which cannot be awaited: use an async handler, or "
        "WorkflowEventConsumer"
        if is_awaited
        else f"the handler returned a {type(result).__name__}, which nobody awaits: use a handler that is "
        "not async, or AsyncWorkflowEventConsumer"
    )


class Retries:
    """How often, and after which pauses, a handler is called again.

    Args:
        max_retries: attempts after the first.
        retry_backoff_ms: the first pause, in milliseconds.
        max_retry_backoff_ms: the longest pause, in milliseconds.
        within_seconds: the time that one event may take, in seconds.

    Raises:
        ConfigurationError: a value is wrong, or all pauses together take that long: a group would not wait.
    """

    def __init__(
        self, max_retries: int, retry_backoff_ms: int, max_retry_backoff_ms: int, *, within_seconds: float
    ) -> None:
        check_whole_number("max_retries", max_retries, minimum=0)
        check_whole_number("retry_backoff_ms", retry_backoff_ms, minimum=1)
        check_whole_number("max_retry_backoff_ms", max_retry_backoff_ms, minimum=retry_backoff_ms)
        self.max_retries = max_retries
        self._first_seconds = retry_backoff_ms / 1000
        self._longest_seconds = max_retry_backoff_ms / 1000
        total = sum(self._longest_pause(attempt) for attempt in range(1, max_retries + 1))
        if total >= within_seconds:
            raise ConfigurationError(
                f"{max_retries} retries can pause for {total:g} s in all, and max_poll_interval_ms gives an "
                f"event only {within_seconds:g} s: lower max_retries or max_retry_backoff_ms, or raise it"
            )

    def next_pause(self, event_id: str, attempts: int, failure: Exception) -> float | None:
        """Return the pause before the next attempt, in seconds, after logging why there is one.

        Args:
            event_id: the event.
            attempts: how many have failed.
            failure: why the last one did.

        Returns:
            ``None`` when the retries are used up.
        """
        if attempts > self.max_retries:
            return None
        pause = self._longest_pause(attempts) * random.uniform(0.75, 1)
        log.warning(
            "handling event %s failed, attempt %d of %d, the next in %.3g s: %s: %s",
            printable(event_id),
            attempts,
            self.max_retries + 1,
            pause,
            type(failure).__name__,
            printable(text_of(failure)),
        )
        return pause

    def _longest_pause(self, attempt: int) -> float:
        return float(min(self._first_seconds * 2 ** min(attempt - 1, 30), self._longest_seconds))


@contextmanager
def stopping_on(signals: Sequence[signal.Signals], stop: Callable[[], None]) -> Iterator[None]:
    """Have signals end the iteration, in the main thread; elsewhere Python has no signal handlers.

    Raises:
        ConfigurationError: this is no list of signals, or one of them cannot be caught.
    """
    wanted = _check_signals(signals)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        log.info("stopping on %s", signal.Signals(number).name)
        stop()

    before: dict[signal.Signals, Any] = {}
    try:
        for number in wanted:
            before[number] = signal.signal(number, on_signal)
        yield
    finally:
        for number, handler in before.items():
            # None: the handler was not set from Python, and cannot be set again from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _check_signals(signals: Any) -> list[signal.Signals]:
    try:
        found = [signal.Signals(number) for number in signals]
    except (TypeError, ValueError):
        found = None
    if found is None or {signal.SIGKILL, signal.SIGSTOP} & set(found):
        raise ConfigurationError(f"stop_on is {signals!r}: use a list of signals that can be caught, or ()")
    return found
