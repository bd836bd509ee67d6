"""Airflow's metrics with a backend of a test's own, in every supported version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow_workflow_events.compat import Stats

try:
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
except ImportError:  # Airflow 3.1
    from airflow.metrics.base_stats_logger import NoStatsLogger  # type: ignore[import-not-found,no-redef]

__all__ = ["NoStatsLogger", "metrics_go_to"]


@contextmanager
def metrics_go_to(backend: Callable[[], Any]) -> Iterator[None]:
    """Have Airflow's metrics go to what ``backend`` makes, for a while."""
    if type(Stats) is type:
        Stats.initialize(factory=backend, export_legacy_names=False)
        try:
            yield
        finally:
            Stats.initialize(factory=NoStatsLogger, export_legacy_names=True)
        return
    stats: Any = Stats  # before Airflow 3.3 its metaclass makes the backend, which the class keeps
    kind: Any = type(Stats)
    former = getattr(kind, "factory", NoStatsLogger)
    kind.factory, stats.instance = staticmethod(backend), None
    try:
        yield
    finally:
        kind.factory, stats.instance = former, None
