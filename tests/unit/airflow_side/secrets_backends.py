"""Backends for Airflow's ``[secrets] backend``: one that counts lookups, one that does not answer."""

from __future__ import annotations

import threading
from typing import ClassVar

from airflow.secrets import BaseSecretsBackend

from airflow_workflow_events.provider_info import DEFAULT_CONNECTION


class CountingBackend(BaseSecretsBackend):
    """Knows no connection, and keeps which it was asked for."""

    asked: ClassVar[list[str]] = []

    def get_connection(self, conn_id: str, team_name: str | None = None) -> None:
        self.asked.append(conn_id)


class BlockingBackend(BaseSecretsBackend):
    """Answers a lookup of the default connection only when it is released, as a vault that hangs."""

    released: ClassVar[threading.Event] = threading.Event()
    asked: ClassVar[threading.Event] = threading.Event()

    def get_connection(self, conn_id: str, team_name: str | None = None) -> None:
        if conn_id == DEFAULT_CONNECTION:
            self.asked.set()
            self.released.wait()
