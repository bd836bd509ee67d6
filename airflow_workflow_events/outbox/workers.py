"""A few threads that run jobs by key: what one job waits for delays no other key's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from time import monotonic

log: logging.Logger = logging.getLogger(__name__)

Job = Callable[[], object]

# Starting a thread for every burst of events costs more than delivering a few of them.
_LINGER_SECONDS = 5.0
# A job that runs longer waits for something that is away, and keeps no other from running.
_HANGING_SECONDS = 1.0
# Threads that wait cost memory alone, but that of a process of Airflow.
_MOST_THREADS = 256


class Workers:
    """Runs at most one job of a key at a time, each in a daemon thread; threads are made as they are needed.

    Of a process: the child of a fork has none of the threads and makes an instance of its own.

    Args:
        name: the threads' name.
        most: how many jobs run at once, apart from those that hang. At most 256 threads in all.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._changed = threading.Condition(threading.Lock())
        self._waiting: dict[Hashable, Job] = {}
        self._running: dict[Hashable, float] = {}  # since when
        self._threads = 0
        self._idle = 0

    def submit(self, key: Hashable, job: Job) -> None:
        """Have a job run soon, and after the one of this key that runs now; replaces one that waits.

        Whether jobs hang meanwhile is looked at here: whoever submits what waits again has it run in their
        stead.
        """
        with self._changed:
            self._waiting[key] = job
            self._changed.notify_all()
            runnable = len(self._waiting.keys() - self._running)
            if runnable > self._idle and self._threads < self._most_threads():
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                thread.start()
                self._threads += 1

    def wait_until_idle(self, timeout: float | None = None) -> bool:
        """Wait until no job runs or waits, at most ``timeout`` seconds; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running and not self._waiting, timeout)

    def _most_threads(self) -> int:
        hanging_since = monotonic() - _HANGING_SECONDS
        hanging = sum(began < hanging_since for began in self._running.values())
        return min(self._most + hanging, _MOST_THREADS)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            key, job = taken
            try:
                job()
            except Exception:  # a thread that ended here would be missed by every later job
                log.exception("the relay goes on after")
            finally:
                with self._changed:
                    del self._running[key]
                    self._changed.notify_all()

    def _take(self) -> tuple[Hashable, Job] | None:
        with self._changed:
            while (key := self._next()) is None:
                self._idle += 1
                told = self._changed.wait(_LINGER_SECONDS)
                self._idle -= 1
                if not told and self._next() is None:
                    self._threads -= 1
                    return None
            self._running[key] = monotonic()
            return key, self._waiting.pop(key)

    def _next(self) -> Hashable | None:
        return next((key for key in self._waiting if key not in self._running), None)
