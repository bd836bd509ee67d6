"""What a client's errors mean: which of them no waiting helps against, and what does help."""

# ruff: noqa: SLF001 - librdkafka's local error codes are constants with a leading underscore

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError as Code

from airflow_workflow_events.errors import KafkaAuthenticationError, KafkaConnectionError, KafkaError
from airflow_workflow_events.kafka import probing
from airflow_workflow_events.kafka.reports import HOPELESS

# A broker's alert about the client's certificate comes after the handshake (TLS 1.3), as an error of
# transport. By OpenSSL's words, which change between its versions, or by number (RFC 8446, section 6).
_ALERT = re.compile(
    r"alert (?:bad certificate|unsupported certificate|certificate revoked|certificate expired"
    r"|certificate unknown|unknown ca|access denied|certificate required|no certificate|handshake failure)"
    r"|certificate required|SSL alert number (?:40|41|42|43|44|45|46|48|49|116)\b"
)
# librdkafka takes the first four bytes of an answer for its size, and advises to allow for larger ones.
_NOT_KAFKA = re.compile(r"Invalid response size (\d+)")
_HTTP = int.from_bytes(b"HTTP")
_MS_IN_STATE = re.compile(r"\(after (\d+)ms in state ([A-Z_]+)")
# A listener that speaks another protocol hangs up at once.
_AT_ONCE_MS = 1_000
_FIRST_STATES = frozenset({"APIVERSION_QUERY", "SSL_HANDSHAKE", "UP"})


def is_refusal(error: Code) -> bool:
    """Whether the error says that one side refuses the other's credentials or certificate."""
    if error.code() in HOPELESS:
        return True
    return error.code() == Code._TRANSPORT and _ALERT.search(error.str()) is not None


def is_hang_up(text: str) -> bool:
    """Whether a text of librdkafka may mean that the listener speaks another protocol."""
    if _NOT_KAFKA.search(text):
        return True
    if "isconnected" not in text and "closed by peer" not in text and "reset by peer" not in text:
        return False
    found = _MS_IN_STATE.search(text)
    if found is None:
        return "ApiVersion" in text  # librdkafka before 2.4
    return int(found[1]) < _AT_ONCE_MS and found[2] in _FIRST_STATES


def refusal_of(error: Code, text: str, config: Mapping[str, Any]) -> KafkaError:
    """Return a refusal as this package's error, with its cause and a remedy.

    Asks the broker itself where librdkafka does not say; bounded by about a second.

    Args:
        error: of which :func:`is_refusal` is true.
        text: its text with secrets taken out.
        config: of the client.
    """
    if _ALERT.search(error.str()):
        remedy = _remedy_for_own_certificate(config)
    elif error.code() == Code._SSL:
        address = probing.address_in(error.str())
        reason = None if address is None else probing.distrust(address, config)
        if reason is not None:  # librdkafka's own text blames the authority for all of them
            return KafkaAuthenticationError(
                f"{error.name()}: certificate verify failed: {reason}", name=error.name()
            )
        remedy = "check ssl.ca.location, the broker's certificate and the TLS versions of both"
    elif "mechanism handshake failed" in error.str():
        remedy = _remedy_for_mechanism(error.str(), config)
    elif str(config.get("sasl.mechanism", "")).upper() == "OAUTHBEARER":
        remedy = "the token was not taken: check the identity provider, audience, scope and expiry"
    else:
        remedy = "check sasl.username, sasl.password and sasl.mechanism"
    return KafkaAuthenticationError(f"{error.name()}: {text} ({remedy})", name=error.name())


def mismatch_of(text: str, config: Mapping[str, Any]) -> KafkaError | None:
    """Return what a listener that hung up speaks in place of this client's protocol.

    Args:
        text: of which :func:`is_hang_up` is true.
        config: of the client.

    Returns:
        ``None`` where it speaks the same, or does not answer: then the broker may be starting or stopping.
    """
    address = probing.address_in(text)
    if address is None:
        return None
    where = f"{address[0]}:{address[1]}"
    answer = _NOT_KAFKA.search(text)
    if answer is not None and int(answer[1]) == _HTTP:
        return KafkaConnectionError(
            f"the listener at {where} speaks HTTP: use the address of a Kafka listener, not of a web server",
            name="_TRANSPORT",
            retriable=False,
        )
    protocol = str(config.get("security.protocol") or "PLAINTEXT").upper()
    if protocol.endswith("SSL"):
        if probing.speaks_plaintext(address):
            return KafkaConnectionError(
                f"the listener at {where} speaks no TLS, but security.protocol is {protocol}: use "
                f"{protocol.replace('SSL', 'PLAINTEXT')}, or the address of a listener with TLS",
                name="_TRANSPORT",
                retriable=False,
            )
    elif probing.speaks_tls(address):
        return KafkaConnectionError(
            f"the listener at {where} speaks TLS, but security.protocol is {protocol}: use SSL, or SASL_SSL "
            "where it wants a login",
            name="_TRANSPORT",
            retriable=False,
        )
    if not protocol.startswith("SASL_"):
        mechanisms = probing.wants_login(address, config)
        if mechanisms is not None:
            return KafkaAuthenticationError(
                f"the listener at {where} wants a login, but security.protocol is {protocol}: use "
                f"{'SASL_SSL' if protocol == 'SSL' else 'SASL_PLAINTEXT'} with sasl.mechanism "
                f"{', '.join(mechanisms) or 'of the broker'}",
                name="_AUTHENTICATION",
            )
    return None


def _remedy_for_own_certificate(config: Mapping[str, Any]) -> str:
    certificate = config.get("ssl.certificate.location")
    given = [name for name in ("ssl.certificate.pem", "ssl.keystore.location") if config.get(name)]
    if certificate is None and not given:
        return (
            "the broker demands a client certificate: set ssl.certificate.location and ssl.key.location, or "
            "use a listener with SASL"
        )
    name = f"{given[0]}" if certificate is None else f"ssl.certificate.location ({certificate})"
    expires = None if certificate is None else probing.expiry(certificate)
    if expires is not None and expires <= dt.datetime.now(dt.UTC):
        return f"the client certificate in {name} has expired on {expires:%Y-%m-%d}: renew it"
    return f"the broker does not take the client certificate in {name}: it must be of an authority it trusts"


def _remedy_for_mechanism(text: str, config: Mapping[str, Any]) -> str:
    _, _, supported = text.partition("supported mechanisms:")
    supported = supported.partition("(after")[0].strip()
    if not supported:
        return "the listener takes no login: use security.protocol SSL or PLAINTEXT, or another listener"
    return f"sasl.mechanism is {config.get('sasl.mechanism')}: use one that the broker supports: {supported}"
