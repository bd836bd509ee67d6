"""A secrets backend that takes its time, as a vault behind a network does."""

from __future__ import annotations

import time
from functools import cached_property

from airflow.secrets import BaseSecretsBackend

_SECONDS = 0.3


class SlowBackend(BaseSecretsBackend):
    """Knows no connection, but only after a while; its client is made under a lock in Python 3.11."""

    def get_connection(self, conn_id: str, team_name: str | None = None) -> None:
        _Vault().client.get(conn_id)


class _Vault:
    @cached_property
    def client(self) -> dict[str, str]:
        time.sleep(_SECONDS)
        return {}
