"""What every client's librdkafka configuration has in common: addresses, security, secrets, topic names.

librdkafka's own names win wherever a user writes ``config={...}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_workflow_events.errors import ConfigurationError, masked, printable

#: librdkafka takes several names for one option; comparing and overriding needs one of them.
#: Source: librdkafka's CONFIGURATION.md, the rows marked "Alias for".
ALIASES = {
    "metadata.broker.list": "bootstrap.servers",
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "message.send.max.retries": "retries",
    "queue.buffering.max.ms": "linger.ms",
    "compression.codec": "compression.type",
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
}

#: Options whose values never appear in an error, a log line or a repr.
SECRET_OPTIONS = frozenset(
    {
        "sasl.kerberos.kinit.cmd",
        "sasl.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)

#: How long a connection may be idle before the client closes it, in milliseconds. Balancers drop idle
#: connections without telling either side, Azure's after 240 s; the next request on such a connection waits
#: for socket.timeout.ms, a minute. The metadata is refreshed as often, so that the request for it is not the
#: one that waits. Source: Azure's "Recommended configurations for Apache Kafka clients".
MAX_IDLE_MS = 180_000
IDLE_OPTIONS = {"connections.max.idle.ms": MAX_IDLE_MS, "topic.metadata.refresh.interval.ms": MAX_IDLE_MS}

SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

_MAX_TEXT = 600  # of what librdkafka, a broker or a user's callback says, in characters

_TRUE, _FALSE = frozenset({"true", "t", "1"}), frozenset({"false", "f", "0"})  # rd_kafka_anyconf_set
_OBJECTS = frozenset({"logger", "default.topic.config"})  # confluent-kafka's own, neither text nor callable
_LEGAL_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # org.apache.kafka.common.internals.Topic


def check_topic(topic: object, name: str = "topic") -> str:
    """Return the topic name, if Kafka would accept it.

    Args:
        topic: the topic.
        name: the parameter, for the error. Default ``"topic"``.

    Raises:
        ConfigurationError: it is empty, longer than 249 characters, ``.`` or ``..``, or has a character other
            than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not isinstance(topic, str) or not _LEGAL_TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise ConfigurationError(
            f"{name} {topic!r} is not a legal Kafka topic name: use 1 to 249 letters, digits, '.', '_' or '-'"
        )
    return topic


def check_group_id(group_id: object) -> str:
    """Return the name of a consumer group, if librdkafka would bear it.

    Raises:
        ConfigurationError: it is no text, or blank, or holds a NUL character. librdkafka takes a blank one
            for none, and confluent-kafka's assertion that there is one ends the process.
    """
    if not isinstance(group_id, str) or not group_id.strip() or "\0" in group_id:
        raise ConfigurationError(
            f"group_id is {group_id!r}: use the name of a consumer group, or None for none"
        )
    return group_id


#: The librdkafka option that each parameter of a client stands for, where it stands for one.
OPTION_OF_PARAMETER = {
    "bootstrap_servers": "bootstrap.servers",
    "acks": "acks",
    "retries": "retries",
    "max_in_flight_requests_per_connection": "max.in.flight.requests.per.connection",
    "request_timeout_ms": "request.timeout.ms",
    "delivery_timeout_ms": "message.timeout.ms",
    "enable_idempotence": "enable.idempotence",
    "client_id": "client.id",
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_username": "sasl.username",
    "sasl_password": "sasl.password",
    "oauth_cb": "oauth_cb",
    "ssl_ca_location": "ssl.ca.location",
    "ssl_certificate_location": "ssl.certificate.location",
    "ssl_key_location": "ssl.key.location",
    "ssl_key_password": "ssl.key.password",
}


def named_options(**parameters: Any) -> dict[str, Any]:
    """Return the librdkafka options that a client's parameters stand for; ``None`` values are left out."""
    return {
        OPTION_OF_PARAMETER[name]: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in parameters.items()
        if value is not None
    }


def without_secrets(text: str, config: Mapping[str, Any]) -> str:
    """Return ``text`` with every secret value of ``config`` replaced by ``***``."""
    values = [config[name] for name in SECRET_OPTIONS & config.keys()]
    return masked(
        text,
        [one.decode(errors="replace") if isinstance(one, bytes) else str(one or "") for one in values],
    )


def one_line(text: str) -> str:
    """Return ``text`` as one line of bounded length that shows itself as it is: others have written it."""
    return printable(" ".join(text[: 2 * _MAX_TEXT].split()), _MAX_TEXT)


def own_options(config: object) -> dict[str, Any]:
    """Return a user's own librdkafka options under librdkafka's canonical names, ``None`` values left out.

    Raises:
        ConfigurationError: this maps no names to values, or names one option twice.
    """
    own: dict[str, Any] = {}
    if config is None:
        return own
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        raise ConfigurationError('config must map librdkafka\'s names to values, e.g. {"linger.ms": 5}')
    for name, value in config.items():
        canonical = ALIASES.get(str(name), str(name))
        if canonical in own:
            raise ConfigurationError(f"config names {canonical} twice, once by an alias: keep one of them")
        if value is not None:
            own[canonical] = value
    if "bootstrap.servers" in own:
        own["bootstrap.servers"] = broker_addresses(own["bootstrap.servers"])
    return own


def check_types(config: Mapping[str, Any]) -> None:
    """Refuse what confluent-kafka would turn into text no one meant, as b"..." for bytes."""
    for name, value in config.items():
        if not (isinstance(value, str | int | float | os.PathLike) or callable(value) or name in _OBJECTS):
            # The value is not shown, as it may be a secret.
            raise ConfigurationError(
                f"{name} is of type {type(value).__name__}: use text, a number, true or false"
            )


def broker_addresses(value: str | Iterable[str]) -> str:
    """Return ``host:port`` addresses as librdkafka takes them: one text, comma separated.

    Raises:
        ConfigurationError: there is none, or one holds a login.
    """
    try:
        parts = value.split(",") if isinstance(value, str) else list(value)
        servers = [part.strip() for part in parts if part.strip()]
    except (TypeError, AttributeError):
        raise ConfigurationError(
            "bootstrap_servers must be host:port addresses, a comma separated text or a list of texts"
        ) from None
    if any("@" in server for server in servers):  # it would show in logs and errors
        raise ConfigurationError(
            "bootstrap_servers holds a login: use sasl_username and sasl_password instead"
        )
    for server in servers:
        scheme, found, _ = server.partition("://")
        if found and scheme.upper() not in SECURITY_PROTOCOLS:
            raise ConfigurationError(f"bootstrap_servers has {server}: use host:port, without {scheme}://")
    if not servers:
        raise ConfigurationError("bootstrap_servers is empty: give at least one host:port, e.g. kafka:9092")
    return ",".join(servers)


def check_whole_number(name: str, value: object, *, minimum: int) -> None:
    """Raise :class:`ConfigurationError` unless a parameter is a whole number of ``minimum`` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigurationError(f"{name} is {value!r}: use a whole number of {minimum} or more")


def whole_number(config: Mapping[str, Any], name: str) -> int:
    """Return an option as a number; text is fine, but librdkafka would read "1e3" as 1."""
    value = config[name]
    try:
        number = None if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (isinstance(value, float) and value != number):
        raise ConfigurationError(f"{name} is {value!r}: use a whole number")
    return number


def is_true(config: Mapping[str, Any], name: str) -> bool:
    """Read a boolean option as librdkafka does."""
    text = str(config.get(name, False)).lower()
    if text not in _TRUE | _FALSE:
        raise ConfigurationError(f"{name} is {config[name]!r}: use true or false")
    return text in _TRUE


def _check_client_certificate(config: Mapping[str, Any]) -> None:
    has_key = any(config.get(name) for name in ("ssl.key.location", "ssl.key.pem"))
    has_certificate = any(config.get(name) for name in ("ssl.certificate.location", "ssl.certificate.pem"))
    if has_certificate and not has_key:
        raise ConfigurationError(
            "a client certificate is configured without its key, and would not be shown: set ssl.key.location"
        )


def check_security(config: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigurationError` where login or certificates are incomplete or would be ignored."""
    protocol = str(config.get("security.protocol", "PLAINTEXT")).upper()
    if protocol not in SECURITY_PROTOCOLS:
        raise ConfigurationError(
            f"security_protocol is {protocol!r}: use one of {', '.join(SECURITY_PROTOCOLS)}"
        )
    mechanism = str(config.get("sasl.mechanism") or "").upper()
    has_login = any(
        value is not None
        for name, value in config.items()
        if name in {"sasl.username", "sasl.password", "oauth_cb"} or name.startswith("sasl.oauthbearer.")
    )
    has_certificates = any(
        value is not None and name.startswith("ssl.") and name.endswith((".location", ".pem"))
        for name, value in config.items()
    )
    _check_client_certificate(config)
    if has_certificates and not protocol.endswith("SSL"):
        raise ConfigurationError(
            f"TLS files are configured but security_protocol is {protocol}, which would ignore them: "
            "use SSL, or SASL_SSL for a login over TLS"
        )
    if not protocol.startswith("SASL_"):
        if mechanism or has_login:
            raise ConfigurationError(
                f"SASL is configured but security_protocol is {protocol}, which would ignore it: "
                "use SASL_SSL, or SASL_PLAINTEXT inside a trusted network"
            )
        return
    if not mechanism:
        raise ConfigurationError(
            f"security_protocol is {protocol} but no sasl_mechanism is given: "
            "use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or GSSAPI"
        )
    if mechanism == "PLAIN" or mechanism.startswith("SCRAM-"):
        missing = [name for name in ("sasl.username", "sasl.password") if not config.get(name)]
        if missing:
            raise ConfigurationError(f"sasl_mechanism {mechanism} needs {' and '.join(missing)}")
