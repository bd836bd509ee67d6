"""A backend for Airflow's ``[secrets] backend`` that holds options, as a vault does."""

from __future__ import annotations

from airflow.secrets import BaseSecretsBackend


class OptionsBackend(BaseSecretsBackend):
    """Knows these options, by the names that ``..._SECRET`` variables have for them."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__()
        self._options = options

    def get_config(self, key: str) -> str | None:
        return self._options.get(key)
