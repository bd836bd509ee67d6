"""Forks: what waits for what, what a child finds, and what a process makes once."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import forks
from airflow_workflow_events.forks import critical_section, once_per_process
from tests.forking import ends_in_child
from tests.waiting import await_condition

_THREADS = 8
_PATIENCE_SECONDS = 60


@pytest.fixture
def release() -> Any:
    """Set when the threads of a test may end."""
    event = threading.Event()
    yield event
    event.set()


def in_section(work: Callable[[], object], release: threading.Event) -> threading.Thread:
    """A thread that works in a critical section; returns once it is inside, or hangs in the work."""
    inside = threading.Event()

    def run() -> None:
        with critical_section():
            inside.set()
            work()
            release.wait(_PATIENCE_SECONDS)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert inside.wait(_PATIENCE_SECONDS)
    return thread


def test_a_fork_waits_for_the_critical_section_of_another_thread(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    monkeypatch.setattr(forks, "WAIT_SECONDS", float(_PATIENCE_SECONDS))
    lock = threading.Lock()

    def work() -> None:
        with lock:
            threading.Timer(0.2, release.set).start()
            release.wait(_PATIENCE_SECONDS)

    thread = in_section(work, release)

    assert ends_in_child(lambda: lock.acquire(timeout=1) or sys.exit(1))
    assert release.is_set()
    thread.join(_PATIENCE_SECONDS)


def test_a_fork_does_not_wait_for_a_section_that_hangs_and_the_next_one_not_at_all(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    thread = in_section(lambda: release.wait(_PATIENCE_SECONDS), release)
    assert ends_in_child()
    monkeypatch.setattr(forks, "WAIT_SECONDS", 1_000.0)
    assert ends_in_child()
    assert thread.is_alive()


def test_a_fork_inside_a_section_waits_for_nothing_and_leaves_parent_and_child_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "WAIT_SECONDS", 1_000.0)

    def use() -> None:
        with critical_section():
            pass

    with critical_section():
        assert ends_in_child(use)
    use()


def test_a_child_computes_a_cached_property_that_a_thread_of_its_parent_was_computing(
    release: threading.Event,
) -> None:
    """In Python 3.11 it inherits a lock of the class; a secrets backend's client may be such a property."""

    class Vault:
        @cached_property
        def client(self) -> str:
            if not in_child():
                release.wait(_PATIENCE_SECONDS)
            return "client"

    parent = os.getpid()

    def in_child() -> bool:
        return os.getpid() != parent

    in_section(lambda: Vault().client, release)
    assert ends_in_child(lambda: Vault().client)


def test_a_child_imports_what_a_thread_of_its_parent_was_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    """A secrets backend may import its library where it first needs it."""
    name = f"imported_across_a_fork_{os.getpid()}"
    began = tmp_path / "began"
    (tmp_path / f"{name}.py").write_text(
        f"import os, pathlib, sys\n"
        f"pathlib.Path({str(began)!r}).touch()\n"
        f"if os.getpid() == {os.getpid()}: sys.release.wait({_PATIENCE_SECONDS})\n"
        f"whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "release", release, raising=False)

    def read() -> bool:
        return bool(__import__(name).whole)

    thread = in_section(read, release)
    await_condition(began.exists, timeout_seconds=_PATIENCE_SECONDS, what="the import to begin")
    assert ends_in_child(read)
    release.set()
    thread.join(_PATIENCE_SECONDS)
    assert read()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("handler_fails", [False, True])
def test_a_fork_keeps_nothing_alive_of_what_its_callers_hold(
    handler_fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's supervisor holds its task's end of a socket, and waits until all of those are closed."""
    # Beside the others: without them what is held for the fork would be held for ever.
    usual = forks._forks._after_in_parent
    monkeypatch.setattr(forks._forks, "_after_in_parent", [*usual, _fail] if handler_fails else usual)
    monkeypatch.setattr(sys, "unraisablehook", lambda _found: None)
    gc.collect()
    gc.disable()
    try:
        assert _fork_holding_something()() is None
    finally:
        gc.enable()


class _Held:
    pass


def _fork_holding_something() -> weakref.ref[_Held]:
    held = _Held()
    assert ends_in_child()
    return weakref.ref(held)


def _fail() -> None:
    raise RuntimeError("a handler fails")


def test_what_a_process_has_once_is_made_once_by_threads_that_ask_at_the_same_time() -> None:
    begin, made = threading.Barrier(_THREADS), list[object]()

    @once_per_process
    def make() -> object:
        made.append(object())
        return made[-1]

    def ask(_number: int) -> object:
        begin.wait(_PATIENCE_SECONDS)
        return make()

    with ThreadPoolExecutor(_THREADS) as threads:
        got = set(threads.map(ask, range(_THREADS)))
    assert got == set(made)
    assert len(made) == 1
    assert make.take() == made
    assert make.take() == []


@pytest.mark.parametrize("inherited", [True, False])
def test_a_child_makes_its_own_unless_it_inherits_even_while_a_thread_of_its_parent_makes_one(
    inherited: bool, release: threading.Event
) -> None:
    pids = once_per_process(os.getpid, inherited=inherited)
    parent = pids()
    others = once_per_process(lambda name: release.wait(_PATIENCE_SECONDS) and name)
    thread = threading.Thread(target=others, args=("parent's",), daemon=True)
    thread.start()

    def check() -> None:
        assert (pids() == parent) is inherited
        release.set()
        assert others("child's") == "child's"

    assert ends_in_child(check)
