"""What is safe in a process that forks while its other threads are at work.

Airflow's scheduler, DAG processor and triggerer fork while a relay's thread looks connections up, logs and
publishes. The child gets a copy of memory with every lock as it was, but none of the threads that would
release them: it waits forever for a lock that another thread held at the fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

_T = TypeVar("_T")


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
