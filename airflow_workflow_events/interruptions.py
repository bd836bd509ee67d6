"""What signal handlers raise inside a fork's handlers: it is raised after the fork.

Airflow's DAG processor ends by a handler of SIGTERM that raises SystemExit. Python runs that handler between
two instructions of its main thread, which may be inside a handler of :func:`os.register_at_fork`. What leaves
one of those is reported as "Exception ignored" and dropped: the process would go on as without a signal.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from operator import methodcaller
from types import CodeType, FrameType
from typing import Any

# Ignored by default, so one too many does no harm; and unlike PyThreadState_SetAsyncExc a signal wakes a main
# thread that waits, and can raise an exception with its arguments, such as an exit code.
_SIGNAL = signal.SIGURG
_POLL_SECONDS, _PATIENCE_SECONDS = 0.001, 10.0
# A step that signals interrupt again and again is given up.
_MOST_KEPT = 5
_kept: list[BaseException] = []


def acquire(lock: Any, timeout: float, held: list[Any]) -> None:
    """Acquire a lock and note it in ``held``, with no signal handler between the two: all of it is C code."""
    held.extend(filter(methodcaller("acquire", True, timeout), (lock,)))


def release(held: list[Any]) -> None:
    """Release those locks, the last first, and forget them, with no signal handler in between."""
    held[:] = filter(methodcaller("release"), held[::-1])


def run_all(make_steps: Callable[[], Iterable[Callable[[], object]]]) -> None:
    """Run all steps, though some raise, and once more the one that a signal handler interrupts.

    Raises:
        BaseException: the first error of a step's own, after the last step.
    """
    # Python looks for signals at calls and at jumps back, so all of those stand in the `try`.
    errors: list[BaseException] = []
    remaining: deque[Callable[[], object]] | None = None
    while remaining is None or remaining:
        try:
            if remaining is None:
                remaining = deque(make_steps())
            while remaining:
                remaining[0]()
                remaining.popleft()
        except BaseException as error:  # noqa: BLE001 - raised below, or after the fork
            is_kept = keep(error)
            if is_kept and len(_kept) < _MOST_KEPT:
                continue
            if not is_kept:
                errors.append(error)
            if not remaining:
                break
            remaining.popleft()
    try:
        if errors:
            raise errors[0]
    finally:
        del errors  # a cycle through the traceback would keep alive what the callers' variables hold


def drop() -> None:
    """In the child: forget what the parent raises."""
    _kept.clear()


def raise_after_fork(fork: tuple[CodeType, int]) -> None:
    """Have what was kept raised in the main thread once it has left the instruction that forks.

    Args:
        fork: the code that forks, and the place of that instruction in it.
    """
    if _kept and threading.current_thread() is threading.main_thread():
        usual = signal.getsignal(_SIGNAL)

        def handle(number: int, frame: FrameType | None) -> None:
            del number, frame
            # None is the handler of a library that is no Python code.
            signal.signal(_SIGNAL, signal.SIG_DFL if usual is None else usual)
            if _kept:
                error = _kept[0]
                _kept.clear()
                raise error

        signal.signal(_SIGNAL, handle)
        threading.Thread(target=_wake, args=(threading.get_ident(), fork), daemon=True).start()


def _wake(thread_id: int, fork: tuple[CodeType, int]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _is_at(thread_id, fork) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if _kept:
        signal.pthread_kill(thread_id, _SIGNAL)


def _is_at(thread_id: int, place: tuple[CodeType, int]) -> bool:
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - there is no public name
    while frame is not None:
        if (frame.f_code, frame.f_lasti) == place:
            return True
        frame = frame.f_back
    return False


def keep(error: BaseException | None, *, is_interruption: bool = False) -> bool:
    """Keep for after the fork what a signal handler raised; return whether it is that.

    Args:
        error: what was raised.
        is_interruption: whether nothing else can have raised it. Default ``False``: its traceback tells.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # Python runs no signal handler there
    while error is not None:
        if is_interruption or not isinstance(error, Exception) or _is_of_signal_handler(error):
            # The traceback's frames would keep alive what the callers' variables hold.
            _kept.append(error.with_traceback(None))
            return True
        error = error.__context__  # a lock that an interrupted wait gave up, say
    return False


def _is_of_signal_handler(error: BaseException) -> bool:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(getattr(handler, "__func__", handler), "__code__", None) for handler in handlers}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
