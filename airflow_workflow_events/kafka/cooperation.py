"""Waiting beside greenlets.

gevent and eventlet run all greenlets of a process in one thread and switch between them in Python's own
waiting functions, which they replace. A call that waits in C, as all of librdkafka's do, stops every greenlet
until it returns: the loop's timers too. Under them a client is therefore only asked what it has, and the
waiting is done by ``time.sleep``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from time import monotonic
from types import BuiltinFunctionType
from typing import TypeVar

_T = TypeVar("_T")

# How late a greenlet may notice what librdkafka has for it, in seconds.
_LOOK_SECONDS = 0.005


def is_cooperative() -> bool:
    """Whether this process runs greenlets: ``time.sleep`` is then theirs, a function of Python."""
    return not isinstance(time.sleep, BuiltinFunctionType)


def poll(ask: Callable[[float], _T], seconds: float, is_enough: Callable[[_T], bool]) -> _T:
    """Ask a client for at most so long, without stopping the greenlets of the process if it has any.

    Args:
        ask: asks the client, and waits for at most the given seconds.
        seconds: for how long, in seconds.
        is_enough: whether an answer ends the waiting.
    """
    if not is_cooperative():
        return ask(seconds)
    deadline = monotonic() + seconds
    while not is_enough(answer := ask(0)) and monotonic() < deadline:
        time.sleep(min(_LOOK_SECONDS, max(deadline - monotonic(), 0)))
    return answer


def call(blocking: Callable[[], _T]) -> _T:
    """Call what waits in C and cannot be asked in between; under gevent in one of its native threads."""
    gevent = sys.modules.get("gevent")
    if gevent is None or not is_cooperative():
        return blocking()
    result: _T = gevent.get_hub().threadpool.apply(blocking)
    return result
