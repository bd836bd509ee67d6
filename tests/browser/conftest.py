"""The fixtures of tests on a whole Airflow."""

from tests.airflow_e2e.deployment import airflow

__all__ = ["airflow"]
