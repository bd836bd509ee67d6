"""What tests have to know of the Airflow that is installed."""

from __future__ import annotations

from importlib.metadata import version

#: Airflow 3.1 asks no provider for its commands.
PROVIDERS_HAVE_COMMANDS = version("apache-airflow-core").split(".")[:2] != ["3", "1"]
