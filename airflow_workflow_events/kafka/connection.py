"""Whether a librdkafka client has reached its brokers, and why it has not."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import confluent_kafka

from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.kafka.config import without_secrets
from airflow_workflow_events.kafka.reports import HOPELESS, translate

log = logging.getLogger(__name__)

_KEPT_ERRORS = 20
_SLICE_SECONDS = 0.25


class Connection:
    """Keeps the last errors of a client, and knows from them what is wrong.

    Args:
        config: librdkafka's configuration, whose secrets are kept out of every text.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._errors: deque[tuple[float, confluent_kafka.KafkaError]] = deque(maxlen=_KEPT_ERRORS)

    @property
    def servers(self) -> str:
        """The bootstrap servers."""
        return str(self._config["bootstrap.servers"])

    def note(self, error: confluent_kafka.KafkaError) -> None:
        """Take what librdkafka tells its error callback."""
        self._errors.append((monotonic(), error))
        # librdkafka logs it as well, under the logger given to it.
        log.debug("Kafka client: %s", self.safe_text(error))

    def forget(self) -> None:
        """Forget the errors of a client that was replaced."""
        self._errors.clear()

    def safe_text(self, error: confluent_kafka.KafkaError) -> str:
        """Return an error's text without the secrets of the configuration."""
        return without_secrets(error.str(), self._config)

    def trouble_since(self, moment: float) -> str | None:
        """Return the last error since ``moment`` (monotonic seconds), the likely cause of a timeout."""
        recent = [error for when, error in list(self._errors) if when >= moment]
        # "1/1 brokers are down" says less than what brought them down.
        telling = [error for error in recent if error.name() != "_ALL_BROKERS_DOWN"] or recent
        return self.safe_text(telling[-1]) if telling else None

    def prove(self, ask: Callable[[float], object], serve: Callable[[], object], timeout: float) -> None:
        """Prove within ``timeout`` seconds that a broker answers.

        Args:
            ask: asks the brokers for something within that many seconds.
            serve: serves the client's callbacks without waiting.
            timeout: the bound, in seconds.

        Raises:
            KafkaAuthenticationError: at once, where the broker refuses the credentials or the certificate.
            KafkaConnectionError: no broker answered in time.
        """
        deadline = monotonic() + timeout
        while True:
            remaining = deadline - monotonic()
            try:
                ask(max(min(remaining, _SLICE_SECONDS), 0.01))
            except confluent_kafka.KafkaException:
                serve()  # the error callback knows the reason
            else:
                log.info("connected to Kafka at %s", self.servers)
                return
            for _, error in self._errors:
                if error.code() in HOPELESS:
                    raise translate(error, self.safe_text(error))
            if deadline - monotonic() <= 0:
                reason = self.trouble_since(deadline - timeout) or "no answer"
                raise KafkaConnectionError(
                    f"no Kafka broker at {self.servers} answered within {timeout:g} s ({reason}): "
                    "check the address, the listener and the security_protocol"
                )
