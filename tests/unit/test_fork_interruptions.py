"""A signal handler that raises while the process forks: its exception comes, and no lock stays held."""

from __future__ import annotations

import dis
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from airflow_workflow_events import forks, interruptions
from airflow_workflow_events.forks import _forks, critical_section
from airflow_workflow_events.outbox import database
from tests.forking import ends_in_child
from tests.waiting import await_condition

_PATIENCE_SECONDS = 30.0


class _StoppedError(Exception):
    """What is raised by a handler of the kind that ends a wait."""


@pytest.fixture(params=[SystemExit, _StoppedError])
def interruption(request: pytest.FixtureRequest) -> Iterator[BaseException]:
    """What the handler of SIGUSR1 raises."""
    error = request.param("told to stop")

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise error

    usual = signal.signal(signal.SIGUSR1, handle)
    yield error
    signal.signal(signal.SIGUSR1, usual)


def assert_raised_after_a_fork(error: BaseException, forking: Callable[[], object] = ends_in_child) -> None:
    with pytest.raises(type(error)) as caught:  # noqa: PT012 - it comes at any instruction of these
        forking()
        time.sleep(_PATIENCE_SECONDS)  # one blocking call, which a signal ends
    assert caught.value is error


def others_can_take(*locks: Any) -> bool:
    taken: list[Any] = []

    def take() -> None:
        for lock in locks:
            if lock.acquire(timeout=_PATIENCE_SECONDS):
                taken.append(lock)
                lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return len(taken) == len(locks)


def main_thread_is_inside(name: str) -> bool:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


def seen(condition: Callable[[], bool]) -> None:
    await_condition(condition, timeout_seconds=_PATIENCE_SECONDS, what="the other thread")


@pytest.mark.parametrize("waits_in", ["_await_sections", "_before_fork", "settle"])
def test_what_interrupts_the_wait_before_a_fork_is_raised_after_it(
    monkeypatch: pytest.MonkeyPatch, interruption: BaseException, waits_in: str
) -> None:
    monkeypatch.setattr(forks, "WAIT_SECONDS", _PATIENCE_SECONDS)
    monkeypatch.setattr(database, "_GATE_SECONDS", _PATIENCE_SECONDS)
    handler = logging.StreamHandler()
    assert handler.lock is not None
    held: dict[str, Any] = {
        "_await_sections": critical_section(),
        "_before_fork": database._gate,
        "settle": handler.lock,
    }
    inside, interrupted = threading.Event(), threading.Event()

    def hold() -> None:
        with held[waits_in]:
            inside.set()
            seen(lambda: main_thread_is_inside(waits_in))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            seen(lambda: interruptions._kept == [interruption])
            seen(lambda: main_thread_is_inside(waits_in))
            interrupted.set()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(_PATIENCE_SECONDS)
    assert_raised_after_a_fork(interruption)
    thread.join()

    assert interrupted.is_set()
    assert others_can_take(database._gate, handler.lock, _forks._lock)
    assert not _forks._forking


def test_what_interrupts_the_end_of_a_fork_is_raised_after_the_other_handlers_ran(
    monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    ran: list[str] = []

    def interrupt_once() -> None:
        ran.append("interrupted")
        if len(ran) == 1:
            signal.raise_signal(signal.SIGUSR1)

    steps = [interrupt_once, *_forks._after_in_parent, lambda: ran.append("last")]
    monkeypatch.setattr(_forks, "_after_in_parent", steps)
    assert_raised_after_a_fork(interruption)

    assert ran == ["interrupted", "interrupted", "last"]
    assert others_can_take(database._gate, _forks._lock)


def test_what_comes_while_the_process_forks_is_raised_after_the_other_handlers_ran(
    monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(_forks, "_after_in_parent", [lambda: ran.append("last")])

    def go_on() -> None:
        # Python raises it where the generator goes on, once the system call is over.
        ending.throw(interruption)

    call = next(one.offset for one in dis.get_instructions(go_on) if one.opname == "CALL")
    ending = _forks._ends_in_parent((go_on.__code__, call))
    next(ending)
    assert_raised_after_a_fork(interruption, go_on)

    assert ran == ["last"]


def test_an_error_of_a_handler_is_not_raised_in_the_forking_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ValueError("a mistake in a handler")

    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_value))
    monkeypatch.setattr(_forks, "_before", [fail, *_forks._before])
    assert ends_in_child()

    assert [str(error) for error in reported] == ["a mistake in a handler"]
    assert interruptions._kept == []
    assert others_can_take(database._gate, _forks._lock)
