"""Airflow's metrics with a backend of a test's own, in every supported version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow_workflow_events.compat import Stats

from tests.airflow_versions import AIRFLOW

try:
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
except ImportError:  # Airflow 3.1
    from airflow.metrics.base_stats_logger import NoStatsLogger  # type: ignore[import-not-found,no-redef]

__all__ = ["NoStatsLogger", "metrics_go_to"]


@contextmanager
def metrics_go_to(backend: Callable[[], Any]) -> Iterator[None]:
    """Have Airflow's metrics go to what ``backend`` makes, for a while."""
    stats: Any = Stats
    if AIRFLOW >= (3, 2):
        is_since_3_3 = AIRFLOW >= (3, 3)
        stats.initialize(factory=backend, **({"export_legacy_names": False} if is_since_3_3 else {}))
        try:
            yield
        finally:
            stats.initialize(factory=NoStatsLogger, **({"export_legacy_names": True} if is_since_3_3 else {}))
        return
    kind: Any = type(Stats)  # before Airflow 3.2 the metaclass makes the backend, which the class keeps
    former = getattr(kind, "factory", NoStatsLogger)
    kind.factory, stats.instance = staticmethod(backend), None
    try:
        yield
    finally:
        kind.factory, stats.instance = former, None
