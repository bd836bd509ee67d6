"""What tests have to know of the Airflow that is installed."""

from __future__ import annotations

from importlib.metadata import version

#: Airflow's major and minor version.
AIRFLOW = tuple(int(number) for number in version("apache-airflow-core").split(".")[:2])
#: Airflow 3.1 asks no provider for its commands.
PROVIDERS_HAVE_COMMANDS = AIRFLOW >= (3, 2)
#: For ``[database] sql_alchemy_conn_async`` where the database's asynchronous driver is not installed and
#: nothing needs it. Airflow 3.1 makes an engine of whatever it is told: of a driver that it has, then.
NO_ASYNC_DATABASE = "" if AIRFLOW >= (3, 2) else "sqlite+aiosqlite://"
