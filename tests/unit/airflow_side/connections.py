"""Airflow connections in the environment, where every process of Airflow finds them without a database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

DEFAULT = "workflow_events_default"


class Connections:
    """Makes Airflow connections for one test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def add(
        self,
        conn_id: str = DEFAULT,
        *,
        conn_type: str = "workflow_events",
        extra: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Make a connection, or replace it; returns its id."""
        self._monkeypatch.setenv(
            f"AIRFLOW_CONN_{conn_id.upper()}",
            json.dumps({"conn_type": conn_type, "extra": dict(extra or {}), **fields}),
        )
        return conn_id
