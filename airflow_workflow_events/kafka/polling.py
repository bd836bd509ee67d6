"""Serving delivery reports: one thread polls the client, everybody else sleeps until its own report is in.

librdkafka hands reports to whichever thread polls. If two threads polled at once, each would wake for the
other's report and go on sleeping in its own poll. So there is one leader at a time: a caller that waits for a
report becomes the leader if there is none (and so gets its report with no switch of threads, which makes a
confirmed publish as fast as librdkafka itself), and hands over when it leaves. A background thread leads
while events sent without waiting are under way.

A signal handler may raise between any two steps of the main thread, as Airflow's task timeout does. So the
lead is an owned lock, given up by whoever finds that it has it, and waking is one call that cannot be left
half done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from contextlib import suppress
from time import monotonic
from typing import Protocol

from airflow_workflow_events.errors import ReentrantCallError

log: logging.Logger = logging.getLogger(__name__)

# A poll returns as soon as a report is served; this bounds how late a leader notices anything else.
_POLL_SECONDS = 0.1
# The background thread ends after so long without work, because it keeps alive the client of a producer that
# was forgotten without being closed. Starting a thread for every event would cost more than the event.
_LINGER_SECONDS = 1.0
# A callback that does not return must not keep close() from returning.
_STOP_SECONDS = 1.0


class Client(Protocol):
    """The part of a confluent-kafka producer that this module needs."""

    def poll(self, timeout: float) -> int:
        """Serve callbacks until one was served or ``timeout`` seconds are over."""
        ...

    def flush(self, timeout: float) -> int:
        """Serve callbacks until nothing is under way; return how many messages still are."""
        ...

    def __len__(self) -> int:
        """How many messages and callbacks are under way."""
        ...


class Waitable:
    """Something that becomes done in a delivery callback. Subclasses call :meth:`finish` there."""

    __slots__ = ("done", "owner", "signal")

    def __init__(self) -> None:
        self.done: bool = False
        self.owner: object = None  # kept alive until then
        self.signal: threading.Lock | None = None

    def lose(self) -> None:
        """Become done, unless it is, although the callback was lost."""
        if not self.done:
            self.finish()

    def finish(self) -> None:
        """Mark as done and wake the thread that waits, if one does."""
        self.done = True
        self.owner = None
        if self.signal is not None:
            _wake(self.signal)


class Poller:
    """Lets threads wait for delivery reports while exactly one of them polls.

    As only the leader polls, callbacks never run at the same time and need no lock of their own.

    Args:
        client: what to poll.
        unwaited: what is under way and no caller waits for; the background thread polls while there is any.
    """

    def __init__(self, client: Client, unwaited: Collection[Waitable]) -> None:
        self._client = client
        self._unwaited = unwaited
        self._leading = threading.RLock()
        # Followers sleep on a lock that is theirs, taken; releasing it wakes them.
        self._followers: set[threading.Lock] = set()
        self._background: threading.Thread | None = None
        self._background_lock = threading.Lock()
        self._wake_background = threading.Event()
        self._stopped = False

    def wait(self, waitable: Waitable, deadline: float) -> bool:
        """Wait until ``waitable`` is done; return whether it is.

        Args:
            waitable: what to wait for.
            deadline: when to give up, in seconds of the monotonic clock.
        """
        try:
            while not waitable.done:
                seconds = _next_slice(deadline)
                if seconds is None:
                    break
                if self._leading.acquire(blocking=False):
                    self._client.poll(seconds)
                    if not len(self._client):
                        waitable.lose()
                    self._leading.release()
                else:
                    self._follow(waitable, seconds)
        finally:
            self._leave()
        return waitable.done

    def flush(self, deadline: float) -> bool:
        """Wait until nothing is under way; return whether that is so. Skips what is left of a linger."""
        try:
            while (seconds := _next_slice(deadline)) is not None:
                if self._leading.acquire(timeout=seconds):
                    if self._client.flush(seconds) == 0:
                        return True
                    self._leading.release()
                    self._hand_over()
        finally:
            self._leave()
        return False

    def serve(self, seconds: float) -> None:
        """Serve reports for at most ``seconds``, so that the client's queue gets room; 0 only looks."""
        try:
            if self._leading.acquire(timeout=seconds):
                self._client.poll(seconds)
                # A signal handler that raises as librdkafka calls back makes a report vanish. Where nothing
                # is under way any more, what still waits for one waits in vain.
                if len(self._unwaited) and not len(self._client):
                    for waitable in list(self._unwaited):
                        waitable.lose()
        finally:
            self._leave()

    def serve_in_background(self) -> None:
        """Have a thread serve reports while anything unwaited is under way. Returns at once."""
        with self._background_lock:
            if not self._wake_background.is_set():
                self._wake_background.set()
            if self._background is None and not self._stopped:
                thread = threading.Thread(
                    target=self._serve_unwaited, name="workflow-events-reports", daemon=True
                )
                thread.start()
                self._background = thread

    def stop(self) -> None:
        """End the background thread, if there is one, and wait for it a little."""
        with self._background_lock:
            self._stopped = True
            self._wake_background.set()
            thread = self._background
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    def refuse_in_callback(self) -> None:
        """Raise :class:`ReentrantCallError` in a delivery callback: its thread serves the reports."""
        if _is_owned(self._leading):
            raise ReentrantCallError(
                "called from a delivery callback or a future's done-callback, where waiting would "
                "never end: use send(), or hand the work to another thread"
            )

    def _follow(self, waitable: Waitable, seconds: float) -> None:
        signal = waitable.signal
        if signal is None:
            signal = threading.Lock()
            signal.acquire()
            waitable.signal = signal
        self._followers.add(signal)
        try:
            # The report may have come before the signal was there to be set.
            if not waitable.done:
                signal.acquire(timeout=seconds)
        finally:
            self._followers.discard(signal)

    def _leave(self) -> None:
        """Give up the lead, if this thread has it, and wake a follower."""
        if _is_owned(self._leading):
            self._leading.release()
        self._hand_over()

    def _hand_over(self) -> None:
        """Wake one follower, so that it takes the lead."""
        if not self._followers:
            return
        try:
            signal = next(iter(self._followers), None)
        except RuntimeError:  # the set changed meanwhile; whoever changed it looks for the lead itself
            return
        if signal is not None:
            _wake(signal)

    def _serve_unwaited(self) -> None:
        while not self._stopped:
            if not self._wake_background.wait(_LINGER_SECONDS):
                with self._background_lock:
                    if not self._wake_background.is_set():
                        self._background = None
                        return
            self._wake_background.clear()
            while len(self._unwaited) and not self._stopped:
                try:
                    self.serve(_POLL_SECONDS)
                except BaseException as error:
                    log.error(
                        "a callback of the Kafka client raised %s", type(error).__name__, exc_info=error
                    )


def _is_owned(lock: threading.RLock) -> bool:
    """Whether this thread has the lock; what :class:`threading.Condition` asks an RLock, too."""
    return bool(lock._is_owned())  # type: ignore[attr-defined] # noqa: SLF001


def _wake(signal: threading.Lock) -> None:
    with suppress(RuntimeError):  # it is awake already
        signal.release()


def _next_slice(deadline: float) -> float | None:
    """Return how long to block next, or ``None`` once the deadline has passed."""
    remaining = deadline - monotonic()
    return min(remaining, _POLL_SECONDS) if remaining > 0 else None
