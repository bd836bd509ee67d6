"""Airflow's listener, switched on and off within a process; production switches it on at start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# Where Airflow keeps listeners: of runs, and, in a module that Airflow 3.1 does not have yet, of tasks.
_MANAGERS = ("airflow.listeners.listener", "airflow.sdk.listener")


@contextmanager
def listening() -> Iterator[None]:
    """Have the listener publish the events of every DAG, by the options of the moment.

    At the end its relay delivers what it has, for at most 5 seconds, and the listener is taken out again,
    where this has put it in.
    """
    from airflow_workflow_events import listeners, relaying

    added = [manager.pm for manager in _managers() if not manager.pm.is_registered(listeners)]
    # What an earlier test has left in this process: its options, and that its broker was away.
    listeners._settings.cache_clear()  # noqa: SLF001 - a process has no use for forgetting them
    relaying._spared_until.clear()  # noqa: SLF001 - likewise
    for plugins in added:
        plugins.register(listeners)
    try:
        yield
    finally:
        for plugins in added:
            plugins.unregister(listeners)
        listeners._stop_relay()  # noqa: SLF001 - Airflow calls it where a job ends, and here is no job
        listeners._settings.cache_clear()  # noqa: SLF001 - see above


def _managers() -> Iterator[Any]:
    for name in _MANAGERS:
        try:
            yield import_module(name).get_listener_manager()
        except ModuleNotFoundError:
            continue
