"""Locks of others that the child of a fork inherits: those of logging, imports and cached properties.

:mod:`airflow_workflow_events.forks` says when. Where something private of the standard library is missing,
the child is as it would be without this module.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import Any

from airflow_workflow_events.interruptions import acquire, release

_IMPORT_SYSTEM = "importlib._bootstrap"


class _Held(threading.local):
    def __init__(self) -> None:
        self.locks: list[Any] = []


class LogLocks:
    """The locks of log handlers, around a fork.

    The standard library renews those of its handlers in the child. But a thread that is writing at the fork
    also holds the lock inside the stream (``BufferedWriter``'s), which nobody can renew, and which both kinds
    of loggers share where they write to the same stream. So the fork waits until nobody writes.
    """

    def __init__(self) -> None:
        self._held = _Held()

    def settle(self, deadline: float) -> None:
        """Wait until no thread is inside a handler, until ``deadline`` (of the monotonic clock)."""
        release(self._held.locks)  # of an attempt that a signal handler interrupted
        # The module's lock first, as logging.shutdown() and dictConfig() take them in this order.
        handlers = [reference() for reference in list(getattr(logging, "_handlerList", ()))]
        kept = [getattr(logging, "_lock", None), *(getattr(handler, "lock", None) for handler in handlers)]
        _acquire(kept, deadline, self._held.locks)
        passing: list[Any] = []
        try:
            _acquire(_structlog_locks(), deadline, passing)
            # Those of structlog are no RLocks: they cannot be kept over the fork, or whatever logs in another
            # library's fork handler would wait for its own thread. After time.sleep(0) Python lets a thread
            # run for 5 ms before others can make it give way, and by then the process has forked.
            time.sleep(0)
        finally:
            release(passing)

    def release(self) -> None:
        """In the parent: let go of what :meth:`settle` keeps."""
        release(self._held.locks)

    def renew(self) -> None:
        """In the child: renew structlog's locks; logging has renewed its own."""
        self._held.locks = []
        for lock in _structlog_locks():
            with suppress(AttributeError):
                lock._at_fork_reinit()  # noqa: SLF001 - as logging does


def _acquire(locks: Iterable[Any], deadline: float, acquired: list[Any]) -> None:
    for lock in locks:
        with suppress(AttributeError, TypeError):  # a handler may have no lock, or one of another kind
            acquire(lock, max(deadline - monotonic(), 0.0), acquired)


def _structlog_locks() -> list[Any]:
    # One lock for each file that any of structlog's loggers writes to, Airflow's among them.
    module = sys.modules.get("structlog._output")
    return list(getattr(module, "WRITE_LOCKS", {}).values())


_cached_properties: list[Any] = []
_imports: list[str] = []


def note_held_by(thread_ids: Iterable[int]) -> None:
    """Before a fork: note which locks those threads hold that can be told from their stacks.

    They look a connection up, say, in a secrets backend that has not answered yet, which may import a library
    or be inside a cached property: in Python 3.11 one lock for all instances of its class.
    """
    _cached_properties.clear()
    _imports.clear()
    frames = sys._current_frames()  # noqa: SLF001 - there is no public name
    # This function's own frame would be a cycle, and keep alive what its callers' variables hold: Airflow's
    # supervisor forgets its task's end of a socket that way, and waits for it to be closed.
    frames.pop(threading.get_ident(), None)
    for thread_id in thread_ids:
        frame = frames.get(thread_id)
        while frame is not None:
            _note(frame)
            frame = frame.f_back


def _note(frame: FrameType) -> None:
    code = frame.f_code
    if code is functools.cached_property.__get__.__code__:
        _cached_properties.append(frame.f_locals["self"])
    elif code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == _IMPORT_SYSTEM:
        _imports.append(frame.f_locals["name"])


def renew() -> None:
    """In the child: renew the locks that were noted, and forget the modules whose import will never end."""
    for cached in _cached_properties:
        if hasattr(cached, "lock"):  # not since Python 3.12
            cached.lock = threading.RLock()
    module_locks = getattr(sys.modules.get(_IMPORT_SYSTEM), "_module_locks", {})
    for name in _imports:
        module_locks.pop(name, None)
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            del sys.modules[name]  # half of it; whoever needs it imports it again
    _cached_properties.clear()
    _imports.clear()
