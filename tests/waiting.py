"""Waiting for a condition in tests, in place of sleeping for a fixed time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_SECONDS = 0.05


def await_condition(condition: Callable[[], T], *, timeout_seconds: float, what: str) -> T:
    """Call ``condition`` until it returns something truthy, and return that.

    The condition is evaluated at least once. What it raises is not caught.

    Args:
        condition: called without arguments, about 20 times a second.
        timeout_seconds: how long to go on, in seconds.
        what: what is being waited for, as a noun phrase; named by the error.

    Raises:
        AssertionError: when the time is up.
    """
    deadline = time.monotonic() + timeout_seconds
    # An event nobody sets: its wait is a pause that is interrupted by the signals a test may use.
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"Waited {timeout_seconds:g} s in vain for {what} (last seen: {value!r})")
        pause.wait(_PAUSE_SECONDS)
