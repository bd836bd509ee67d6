"""What is safe in a process that forks while its other threads are at work.

Airflow's scheduler, DAG processor and triggerer fork while a relay's thread looks connections up, logs and
publishes. The child gets a copy of memory with every lock as it was, but none of the threads that would
release them: it waits forever for a lock that another thread held at the fork. So each lock falls under one
of these rules:

* **Not held across a blocking call**: :class:`unlocked_cached_property`.
* **The fork waits for a safe point**: what takes locks of others (Airflow, a secrets backend, SQLAlchemy, a
  metrics client, the import system) runs in a :class:`critical_section`, and a fork waits for those to end,
  at most :data:`WAIT_SECONDS`.
* **Renewed in the child**: this package's own locks, by :func:`register`, and those of
  :mod:`airflow_workflow_events.inherited_locks`.

docs/guarantees.md has the list of locks.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Hashable
from functools import partial
from operator import methodcaller
from time import monotonic
from types import CodeType, TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from airflow_workflow_events import interruptions
from airflow_workflow_events.inherited_locks import LogLocks, note_held_by, renew

_T = TypeVar("_T")
_P = ParamSpec("_P")

#: How long a fork waits in all for critical sections and log lines of other threads, in seconds. The
#: scheduler forks on its main thread, so this holds up scheduling.
WAIT_SECONDS = 0.25
# A fork of another thread takes milliseconds, seconds on a busy machine. Nothing waits longer for one.
_FORK_SECONDS = 10.0


class unlocked_cached_property(Generic[_T]):  # noqa: N801 - used as a decorator, like property
    """A :func:`functools.cached_property` that holds no lock while the value is computed.

    In Python 3.11 that of the standard library has one lock for all instances of a class, and holds it while
    the value is computed. Here two threads that ask at once may both compute it; the first value stays.

    Args:
        compute: the method that computes the value.
    """

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | _T:
        if instance is None:
            return self
        # A value in the instance's dictionary comes before this descriptor, which has no __set__.
        values: dict[str, _T] = vars(instance)
        if self._name not in values:
            value = self._compute(instance)
            return values.setdefault(self._name, value)
        return values[self._name]


class once_per_process(Generic[_P, _T]):  # noqa: N801 - used as a decorator, like functools.lru_cache
    """A function whose result is made once for each set of arguments, however many threads ask at once.

    Other threads wait while it is made. A signal handler that cuts in meanwhile may use it.

    Args:
        make: the function. Its arguments are positional and hashable.
        inherited: whether the child of a fork keeps the parent's results. Default ``False``: it makes its
            own.
    """

    def __init__(self, make: Callable[_P, _T], *, inherited: bool = False) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._made: dict[tuple[Hashable, ...], _T] = {}
        self.__doc__ = make.__doc__
        register(after_in_child=self._renew if inherited else self._forget)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return the result for these arguments."""
        with self._lock:
            if args not in self._made:
                self._made[args] = self._make(*args, **kwargs)
            return self._made[args]

    def take(self) -> list[_T]:
        """Return what was made and forget it, so that each result is given to one caller."""
        with self._lock:
            taken = list(self._made.values())
            self._made.clear()
        return taken

    def cache_clear(self) -> None:
        """Forget what was made."""
        self.take()

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def _forget(self) -> None:
        self._renew()
        # Kept while the child lives: freeing a client of librdkafka would wait for the parent's threads.
        self._of_parent, self._made = self._made, {}


class critical_section:  # noqa: N801 - used like a function that returns a context manager
    """What no fork should cut through: ``with critical_section(): ...`` around work that takes others' locks.

    A fork by another thread waits until the section ends, at most :data:`WAIT_SECONDS`. One that takes longer
    is not waited for again, so that a secrets backend that hangs holds up one fork only.
    """

    __slots__ = ("_counted", "is_overdue", "thread_id")

    def __enter__(self) -> None:
        self.thread_id: int = threading.get_ident()
        self.is_overdue: bool = False
        self._counted = _forks.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counted:
            _forks.leave(self)


class _Fork(threading.local):
    """The fork that a thread is at."""

    after_in_parent: Callable[[], object] = staticmethod(lambda: None)  # where `before` never began


class _Forks:
    """Lets a fork and the critical sections of other threads exclude each other, for a bounded time."""

    def __init__(self) -> None:
        self._renew()
        self._fork = _Fork()
        self._log_locks = LogLocks()
        self._before: list[Callable[[], object]] = []
        self._after_in_parent: list[Callable[[], object]] = []
        self._after_in_child: list[Callable[[], object]] = []

    def _renew(self) -> None:
        # Entered by this lock, not by the condition: its __enter__ is Python code, and a signal handler that
        # raises there would leave it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sections: dict[int, critical_section] = {}  # by thread: one inside another counts once
        self._forking: set[int] = set()

    def register(
        self,
        before: Callable[[], object] | None,
        after_in_parent: Callable[[], object] | None,
        after_in_child: Callable[[], object] | None,
    ) -> None:
        for callback, callbacks in (
            (before, self._before),
            (after_in_parent, self._after_in_parent),
            (after_in_child, self._after_in_child),
        ):
            if callback is not None:
                callbacks.append(callback)

    def with_os(self) -> None:
        """Have Python call this object around forks."""
        os.register_at_fork(
            before=partial(interruptions.run_all, self._steps_before),
            # All of it is C code up to where the generator waits: see _ends_in_parent.
            after_in_parent=partial(methodcaller("after_in_parent"), self._fork),
            after_in_child=partial(interruptions.run_all, self._steps_in_child),
        )

    def enter(self, section: critical_section) -> bool:
        """Note that a section begins, after a fork that is under way; return whether it is the outermost."""
        me = section.thread_id
        with self._lock:
            if me in self._sections:
                return False
            if self._forking and me not in self._forking:
                self._changed.wait_for(lambda: not self._forking, _FORK_SECONDS)
            self._sections[me] = section
        return True

    def leave(self, section: critical_section) -> None:
        with self._lock:
            # In the child of a fork inside a section nothing is known of it any more.
            self._sections.pop(section.thread_id, None)
            if self._forking:
                self._changed.notify_all()

    def _steps_before(self) -> list[Callable[[], object]]:
        me, deadline = threading.get_ident(), monotonic() + WAIT_SECONDS
        ending = self._ends_in_parent(_fork_instruction())
        next(ending)
        self._fork.after_in_parent = ending.__next__
        return [
            lambda: self._await_sections(me, deadline),
            *self._before,
            lambda: self._log_locks.settle(deadline),
            # What the overdue sections hold is unknown, but for what their stacks tell.
            lambda: note_held_by([thread for thread in list(self._sections) if thread != me]),
        ]

    def _await_sections(self, me: int, deadline: float) -> None:
        with self._lock:
            self._forking.add(me)
            self._changed.wait_for(lambda: not self._awaited(me), max(deadline - monotonic(), 0.0))
            for section in self._awaited(me):
                section.is_overdue = True

    def _awaited(self, me: int) -> list[critical_section]:
        return [one for one in self._sections.values() if not one.is_overdue and one.thread_id != me]

    def _ends_in_parent(self, fork: tuple[CodeType, int]) -> Generator[None, None, None]:
        """Wait for the end of the fork, and do what comes after it in the parent.

        Signals that come during the fork, milliseconds in a large process, are handled as soon as Python runs
        Python code again: in the first line of a function, which stands in no `try` of its own. A generator
        goes on inside one.
        """
        try:
            yield
        except GeneratorExit:  # the child's copy is dropped
            return
        except BaseException as error:  # noqa: BLE001 - raised after the fork
            interruptions.keep(error, is_interruption=True)
        interruptions.run_all(
            lambda: [
                self._log_locks.release,
                self._end_fork,
                *self._after_in_parent,
                lambda: interruptions.raise_after_fork(fork),
            ]
        )
        yield

    def _end_fork(self) -> None:
        with self._lock:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def _steps_in_child(self) -> list[Callable[[], object]]:
        interruptions.drop()
        fork = _fork_instruction()
        return [
            self._renew,
            self._log_locks.renew,
            renew,
            *self._after_in_child,
            lambda: interruptions.raise_after_fork(fork),
        ]


def _fork_instruction() -> tuple[CodeType, int]:
    """The code that forks, and the place in it: below this function, its caller and `run_all`."""
    frame = sys._getframe(3)  # noqa: SLF001 - there is no public name
    return frame.f_code, frame.f_lasti


_forks = _Forks()
_forks.with_os()


def register(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Register what to do around a fork, as :func:`os.register_at_fork` does, but in a defined order.

    ``before`` runs once the critical sections of other threads have ended: it may take locks that they take.
    All run in the order of registration.

    Args:
        before: called before the fork.
        after_in_parent: called after it in the parent.
        after_in_child: called after it in the child.
    """
    _forks.register(before, after_in_parent, after_in_child)
