"""Airflow's serialization of XComs and of what triggers fire, wherever the installed version has it."""

from __future__ import annotations

try:
    from airflow.sdk.serde import deserialize, serialize
except ImportError:  # before Airflow 3.2
    from airflow.serialization.serde import deserialize, serialize  # type: ignore[no-redef,import-not-found]

__all__ = ["deserialize", "serialize"]
