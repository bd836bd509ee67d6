"""What tests have to know of the Airflow that is installed."""

from __future__ import annotations

from importlib.metadata import version

#: Airflow's major and minor version.
AIRFLOW = tuple(int(number) for number in version("apache-airflow-core").split(".")[:2])
#: Airflow 3.1 asks no provider for its commands.
PROVIDERS_HAVE_COMMANDS = AIRFLOW >= (3, 2)
