"""Whether a librdkafka client has reached its brokers, and why it has not."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

import confluent_kafka

from airflow_workflow_events.errors import KafkaConnectionError, KafkaError
from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.client_log import MAX_KINDS, kind_of
from airflow_workflow_events.kafka.config import without_secrets
from airflow_workflow_events.kafka.reports import HOPELESS, translate

log = logging.getLogger(__name__)

_KEPT_ERRORS = 20
# A refusal is looked for between two questions. Each may be asked anew, so they get longer: the answers of
# slow brokers would always come to the question before.
_FIRST_SLICE_SECONDS = 0.25
_LONGEST_SLICE_SECONDS = 4.0
_LATELY_SECONDS = 60.0
_WARNING_PAUSE_SECONDS = 60.0


class Connection:
    """Keeps the last errors of a client, and knows from them what is wrong.

    Args:
        config: librdkafka's configuration, whose secrets are kept out of every text.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._errors: deque[tuple[float, confluent_kafka.KafkaError]] = deque(maxlen=_KEPT_ERRORS)
        self._warn_again_at: dict[str, float] = {}

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

    def warn(self, text: str) -> None:
        """Log a warning, but one of its kind once a minute."""
        now, kind = monotonic(), kind_of(text)
        if now >= self._warn_again_at.get(kind, 0.0):
            if len(self._warn_again_at) >= MAX_KINDS:
                self._warn_again_at.clear()
            self._warn_again_at[kind] = now + _WARNING_PAUSE_SECONDS
            log.warning("%s", text)

    def refusal(self) -> KafkaError | None:
        """Return why the broker refuses the credentials or the certificate, if it has done so lately."""
        since = monotonic() - _LATELY_SECONDS
        for when, error in reversed(list(self._errors)):
            if when >= since and error.code() in HOPELESS:
                return translate(error, self.safe_text(error))
        return None

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
        slice_seconds = _FIRST_SLICE_SECONDS
        while True:
            remaining = deadline - monotonic()
            try:
                cooperation.call(partial(ask, max(min(remaining, slice_seconds), 0.01)))
            except confluent_kafka.KafkaException:
                serve()  # the error callback knows the reason
            else:
                log.info("connected to Kafka at %s", self.servers)
                return
            if refusal := self.refusal():
                raise refusal
            slice_seconds = min(slice_seconds * 2, _LONGEST_SLICE_SECONDS)
            if deadline - monotonic() <= 0:
                raise KafkaConnectionError(self.absence(timeout))

    def absence(self, seconds: float) -> str:
        """Return an error's text: for so long, in seconds, no broker has answered."""
        reason = self.trouble_since(monotonic() - seconds) or "no answer"
        return (
            f"no Kafka broker at {self.servers} answered within {seconds:g} s ({reason}): "
            "check the address, the listener and the security_protocol"
        )


def contained(name: str, callback: Callable[..., Any]) -> Callable[..., None]:
    """Return a user's callback whose exceptions are logged, and kept away from whoever happens to poll."""

    def call(*arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - see above
            log.error("%s raised %s: %s", name, type(error).__name__, error)

    return call
