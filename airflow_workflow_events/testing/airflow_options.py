"""Airflow's connections and options, in the environment, where every process of Airflow finds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow_workflow_events.provider_info import CONNECTION_TYPE, DEFAULT_CONNECTION

_OPTION = "AIRFLOW__WORKFLOW_EVENTS__{}"


class AirflowConnections:
    """Points Airflow at a broker; the fixture ``workflow_events_connections``.

    Args:
        set_variable: sets an environment variable, e.g. ``monkeypatch.setenv``, or ``a_dict.__setitem__``
            to collect the environment of another process.
        bootstrap_servers: the broker, ``host:port``.
    """

    def __init__(self, set_variable: Callable[[str, str], object], bootstrap_servers: str) -> None:
        self._set = set_variable
        self._servers = bootstrap_servers

    def add(self, conn_id: str = DEFAULT_CONNECTION, **extra: Any) -> str:
        """Make a connection to the broker, or replace it.

        Args:
            conn_id: its id. Default ``"workflow_events_default"``, which is also made the connection of
                everything that names none.
            **extra: fields of the connection, e.g. ``topic="orders"`` or ``environment="test"``; names with
                dots as ``**{"compression.type": "lz4"}``.

        Returns:
            Its id.
        """
        fields = {"bootstrap.servers": self._servers, **extra}
        self._set(
            f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": CONNECTION_TYPE, "extra": fields})
        )
        if conn_id == DEFAULT_CONNECTION:
            self._set(_OPTION.format("CONN_ID"), conn_id)
        return conn_id

    def set_outbox(self, url: str | None) -> None:
        """Have events go through an outbox, or, with ``None``, directly to the broker.

        Args:
            url: a database, e.g. ``"sqlite:////tmp/outbox.db"``.
        """
        self._set(_OPTION.format("OUTBOX_URL"), url or "")
        if url is None:
            # The listener brings an outbox of its own, below AIRFLOW_HOME.
            self._set(_OPTION.format("LISTENER"), "False")
