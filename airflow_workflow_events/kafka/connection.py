"""Whether a librdkafka client has reached its brokers, and why it has not."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

import confluent_kafka

from airflow_workflow_events.errors import (
    ConfigurationError,
    KafkaAuthenticationError,
    KafkaConnectionError,
    KafkaError,
    WorkflowEventsError,
)
from airflow_workflow_events.kafka import cooperation
from airflow_workflow_events.kafka.client_log import CLIENT_LOG, MAX_KINDS, kind_of
from airflow_workflow_events.kafka.config import one_line, without_secrets
from airflow_workflow_events.kafka.refusals import is_hang_up, is_refusal, mismatch_of, refusal_of
from airflow_workflow_events.kafka.reports import error_text

log: logging.Logger = logging.getLogger(__name__)

_KEPT_ERRORS = 20
# A refusal is looked for between two questions. Each may be asked anew, so they get longer: the answers of
# slow brokers would always come to the question before.
_FIRST_SLICE_SECONDS = 0.25
_LONGEST_SLICE_SECONDS = 4.0
# librdkafka tries again at least every 10 s (reconnect.backoff.max.ms), give or take a quarter.
_LATELY_SECONDS = 15.0
# Brokers that took the credentials before get this long to take them again.
_CHANCE_SECONDS = 1.5
# A broker that starts also hangs up, so the same listener is looked at again after so long.
_LOOK_AGAIN_SECONDS = 2.0
_WARNING_PAUSE_SECONDS = 60.0


class Connection:
    """Keeps the last errors of a client, and knows from them what is wrong.

    Args:
        config: librdkafka's configuration, whose secrets are kept out of every text.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._errors: deque[tuple[float, confluent_kafka.KafkaError]] = deque(maxlen=_KEPT_ERRORS)
        self._cause: confluent_kafka.KafkaError | None = None
        self._hang_up: tuple[float, str] | None = None
        self._look_at = 0.0
        self._accepted_at: float | None = None
        self._all_down_at = 0.0
        self._explained: dict[str, KafkaError] = {}
        self._warn_again_at: dict[str, float] = {}
        self.is_troubled: bool = False
        """Whether anything has gone wrong since a broker took the credentials."""

    @property
    def servers(self) -> str:
        """The bootstrap servers."""
        return str(self._config["bootstrap.servers"])

    @property
    def group_id(self) -> str | None:
        """The consumer group of the configuration, if there is one."""
        return self._config.get("group.id")

    @property
    def log(self) -> ClientLog:
        """The logger to give to the librdkafka client."""
        return ClientLog(self)

    @property
    def was_accepted(self) -> bool:
        """Whether a broker has ever taken the credentials."""
        return self._accepted_at is not None

    def accept(self) -> None:
        """Take note that a broker has answered, and so taken the credentials."""
        self._accepted_at = monotonic()
        if self.is_troubled:
            self.is_troubled = False
            self._cause = self._hang_up = None
            self._explained.clear()

    def note(self, error: confluent_kafka.KafkaError) -> None:
        """Take what librdkafka tells its error callback."""
        if error.name() == "_ALL_BROKERS_DOWN":
            self._all_down_at = monotonic()
        else:
            self._cause = error
        self._errors.append((monotonic(), error))
        self.is_troubled = True
        # librdkafka logs it as well, under the logger given to it.
        log.debug("Kafka client: %s", self.safe_text(error))

    def note_log(self, text: str) -> None:
        """Take a line of librdkafka's log: that a listener hung up is told there alone."""
        if not self.was_accepted and is_hang_up(text):
            self._hang_up = (monotonic(), text)
            self.is_troubled = True

    def note_token_failure(self, reason: str) -> None:
        """Take note of why ``oauth_cb`` gave no token: librdkafka only says that it raised."""
        log.warning("oauth_cb gave no new token, and is asked again: %s", reason)

    def forget(self) -> None:
        """Forget the errors of a time that is over."""
        self._errors.clear()
        self._cause = self._hang_up = None
        self._explained.clear()
        self.is_troubled = False

    def renew(self) -> None:
        """Begin with a new client, which no broker has accepted yet."""
        self.forget()
        self._accepted_at = None
        self._all_down_at = 0.0

    def safe_text(self, error: confluent_kafka.KafkaError) -> str:
        """Return an error's text in one line, without the secrets of the configuration."""
        return error_text(error, self._config)

    def trouble_since(self, moment: float) -> str | None:
        """Return the last error since ``moment`` (monotonic seconds), the likely cause of a timeout."""
        recent = [error for when, error in list(self._errors) if when >= moment]
        # "0/1 brokers are down" says less than what brought them down, which librdkafka 2.15 tells but once.
        telling = [error for error in recent if error.name() != "_ALL_BROKERS_DOWN"]
        if recent and not telling and self._cause is not None:
            telling = [self._cause]
        return self.safe_text((telling or recent)[-1]) if recent else None

    def warn(self, text: str) -> None:
        """Log a warning, but one of its kind once a minute."""
        now, kind = monotonic(), kind_of(text)
        if now >= self._warn_again_at.get(kind, 0.0):
            if len(self._warn_again_at) >= MAX_KINDS:
                self._warn_again_at.clear()
            self._warn_again_at[kind] = now + _WARNING_PAUSE_SECONDS
            log.warning("%s", text)

    def refusal(self) -> KafkaError | None:
        """Return why the broker refuses this client, if it has done so lately.

        A :class:`KafkaAuthenticationError`, or a :class:`KafkaConnectionError` where the listener speaks
        another protocol. Takes about a second where the broker has to be asked for the reason.
        """
        since = max(monotonic() - _LATELY_SECONDS, self._accepted_at or 0.0)
        for when, error in reversed(list(self._errors)):
            if when >= since and is_refusal(error):
                return self._explain(error)
        return self._mismatch(since)

    def final_refusal(self) -> KafkaError | None:
        """Return why nothing can be sent: every broker that is known refuses this client.

        ``None`` as long as one may take it. Brokers that took it before are given a moment.
        """
        accepted_at = self._accepted_at or 0.0
        since = max(monotonic() - _LATELY_SECONDS, accepted_at)
        refused = [when for when, error in list(self._errors) if when > since and is_refusal(error)]
        if self._all_down_at <= accepted_at or not (refused or self._hang_up):
            return None
        if self.was_accepted and (not refused or refused[-1] - refused[0] < _CHANCE_SECONDS):
            return None
        return self.refusal()

    def _explain(self, error: confluent_kafka.KafkaError) -> KafkaError:
        kind = kind_of(error.str())
        if kind not in self._explained:
            self._explained[kind] = refusal_of(error, self.safe_text(error), self._config)
        return _copy(self._explained[kind])

    def _mismatch(self, since: float) -> KafkaError | None:
        if self._hang_up is None or self._hang_up[0] < since:
            return None
        text = self._hang_up[1]
        kind = kind_of(text)
        if kind not in self._explained:
            if monotonic() < self._look_at:
                return None
            self._look_at = monotonic() + _LOOK_AGAIN_SECONDS
            found = mismatch_of(text, self._config)
            if found is None:
                return None
            self._explained[kind] = found
        return _copy(self._explained[kind])

    def prove(self, ask: Callable[[float], object], serve: Callable[[], object], timeout: float) -> None:
        """Prove within ``timeout`` seconds that a broker answers.

        Args:
            ask: asks the brokers for something within that many seconds.
            serve: serves the client's callbacks without waiting.
            timeout: the bound, in seconds.

        Raises:
            KafkaAuthenticationError: at once, where the broker refuses the credentials or the certificate.
            KafkaConnectionError: no broker answered in time, or the listener speaks another protocol.
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
                self.accept()
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


def _copy(error: KafkaError) -> KafkaError:
    """Return an error that can be raised by itself: raised twice, one would gather tracebacks."""
    return type(error)(str(error), name=error.name, retriable=error.retriable)


class ClientLog:
    """The logger of a librdkafka client: passes everything on, and tells the connection of it.

    confluent-kafka calls :meth:`log` alone. It must not keep the connection's owner alive.

    Args:
        connection: is told.
        loudest: the level that a line gets at most. Default ``logging.CRITICAL``.
    """

    def __init__(self, connection: Connection, loudest: int = logging.CRITICAL) -> None:
        self._connection = weakref.ref(connection)
        self._loudest = loudest

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """Log a line, as :meth:`logging.Logger.log` does."""
        connection = self._connection()
        if connection is not None and arguments:
            connection.note_log(str(arguments[-1]))
        CLIENT_LOG.log(min(level, self._loudest), message, *arguments)


def refused_configuration(error: Exception, config: Mapping[str, Any]) -> WorkflowEventsError:
    """Return the error of a client that librdkafka does not make; it names the file that this is about."""
    cause = error.args[0] if error.args else error
    text = cause.str() if isinstance(cause, confluent_kafka.KafkaError) else str(cause)
    text = one_line(without_secrets(text, config))
    if "OAuth token not set" in text:  # by a source of tokens that confluent-kafka has put in by itself
        return KafkaAuthenticationError(f"{text}: check the identity provider", name="_AUTHENTICATION")
    for name, remedy in _FILE_REMEDIES.items():
        if f"{name} failed" in text:
            path = config.get(name)
            reason = _unreadable(path)
            # OpenSSL's "BIO lib" and "system lib" say nothing that this does not.
            said = f"which cannot be read: {reason}" if reason else f"but: {text}"
            text = f"{name} is {path}, {said}; {remedy}"
    return ConfigurationError(f"librdkafka refuses the configuration: {text}")


def _unreadable(path: Any) -> str | None:
    try:
        with open(path, "rb"):  # noqa: PTH123 - librdkafka has just tried the same
            return None
    except OSError as error:
        return error.strerror
    except (TypeError, ValueError):
        return "it is no path"


_FILE_REMEDIES = {
    "ssl.key.location": "use the private key of the certificate, in PEM, with ssl.key.password if it has one",
    "ssl.certificate.location": "use a certificate in PEM",
    "ssl.ca.location": "use certificates of authorities in PEM",
    "ssl.keystore.location": "use a PKCS#12 file, with its ssl.keystore.password",
}


def contained(name: str, callback: Callable[..., Any]) -> Callable[..., None]:
    """Return a user's callback whose exceptions are logged, and kept away from whoever happens to poll."""

    def call(*arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - see above
            log.error("%s raised %s: %s", name, type(error).__name__, error)

    return call
