"""From the guide's parameters to a checked librdkafka configuration.

librdkafka's own names win wherever a user writes ``config={...}``; this module knows the few combinations
that librdkafka accepts although they break the producer's promises, and which values are secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_workflow_events.errors import ConfigurationError

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

SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

_IDEMPOTENCE_MAX_IN_FLIGHT = 5  # librdkafka refuses more, as the broker keeps five batches per producer id
_NUMBERS = (
    "retries",
    "max.in.flight.requests.per.connection",
    "request.timeout.ms",
    "message.timeout.ms",
)
_TRUE, _FALSE = frozenset({"true", "t", "1"}), frozenset({"false", "f", "0"})  # rd_kafka_anyconf_set
_OBJECTS = frozenset({"logger", "default.topic.config"})  # confluent-kafka's own, neither text nor callable
_LEGAL_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # org.apache.kafka.common.internals.Topic


def producer_config(
    *,
    bootstrap_servers: str | Iterable[str],
    acks: str | int,
    retries: int,
    max_in_flight_requests_per_connection: int,
    request_timeout_ms: int,
    delivery_timeout_ms: int,
    enable_idempotence: bool | None,
    options: Mapping[str, Any],
    config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return librdkafka's configuration for a producer.

    Args:
        bootstrap_servers: ``host:port`` addresses, a comma separated string or an iterable.
        acks: ``"0"``, ``"1"`` or ``"all"``.
        retries: attempts after the first, 0 or more.
        max_in_flight_requests_per_connection: 1 to 1,000,000.
        request_timeout_ms: how long a broker may take to answer, in milliseconds.
        delivery_timeout_ms: how long an event may take from being accepted to its report, in milliseconds.
        enable_idempotence: ``None`` turns it on wherever the other settings allow it.
        options: further librdkafka options of named parameters; ``None`` values are dropped.
        config: the user's own librdkafka options; they win over everything else.

    Raises:
        ConfigurationError: a value or a combination is wrong.
    """
    check_whole_number("retries", retries, minimum=0)
    check_whole_number(
        "max_in_flight_requests_per_connection", max_in_flight_requests_per_connection, minimum=1
    )
    check_whole_number("request_timeout_ms", request_timeout_ms, minimum=1)
    check_whole_number("delivery_timeout_ms", delivery_timeout_ms, minimum=1)
    own = _own_options(config)
    merged: dict[str, Any] = {
        "bootstrap.servers": _servers(bootstrap_servers),
        "acks": _acks(acks),
        "retries": retries,
        "max.in.flight.requests.per.connection": max_in_flight_requests_per_connection,
        # A request that outlives its event would only report what is already known.
        "request.timeout.ms": min(request_timeout_ms, delivery_timeout_ms),
        "message.timeout.ms": delivery_timeout_ms,
        # Java, aiokafka and kafka-python place keys with murmur2; librdkafka's own default is CRC32, which
        # would put the same run on another partition.
        "partitioner": "murmur2_random",
        # A confirmed publish waits for its batch. librdkafka still batches under load: what arrives while a
        # request is under way leaves together with the next one.
        "linger.ms": 0,
        **{name: value for name, value in options.items() if value is not None},
        **own,
    }
    _check_types(merged)
    for name in _NUMBERS:
        merged[name] = whole_number(merged, name)
    if _is_true(merged, "delivery.report.only.error"):
        raise ConfigurationError(
            "delivery.report.only.error is on: no event could ever be confirmed; leave it out"
        )
    _settle_idempotence(merged, enable_idempotence, explicit="enable.idempotence" in own)
    _check_security(merged)
    return merged


def check_topic(topic: object) -> str:
    """Return the topic name, if Kafka would accept it.

    Raises:
        ConfigurationError: it is empty, longer than 249 characters, ``.`` or ``..``, or has a character other
            than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not isinstance(topic, str) or not _LEGAL_TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise ConfigurationError(
            f"topic {topic!r} is not a legal Kafka topic name: use 1 to 249 letters, digits, '.', '_' or '-'"
        )
    return topic


#: The librdkafka option that each parameter of the producer stands for, where it stands for one.
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


def without_secrets(text: str, config: Mapping[str, Any]) -> str:
    """Return ``text`` with every secret value of ``config`` replaced by ``***``."""
    for name in SECRET_OPTIONS:
        value = config.get(name)
        secret = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
        if secret:
            text = text.replace(secret, "***")
    return text


def _own_options(config: object) -> dict[str, Any]:
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
        own["bootstrap.servers"] = _servers(own["bootstrap.servers"])
    if "acks" in own:
        own["acks"] = _acks(own["acks"])
    return own


def _check_types(config: Mapping[str, Any]) -> None:
    """Refuse what confluent-kafka would turn into text no one meant, as b"..." for bytes."""
    for name, value in config.items():
        if not (isinstance(value, str | int | float | os.PathLike) or callable(value) or name in _OBJECTS):
            # The value is not shown, as it may be a secret.
            raise ConfigurationError(
                f"{name} is of type {type(value).__name__}: use text, a number, true or false"
            )


def _servers(value: str | Iterable[str]) -> str:
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
    if not servers:
        raise ConfigurationError("bootstrap_servers is empty: give at least one host:port, e.g. kafka:9092")
    return ",".join(servers)


def _acks(value: str | int) -> str:
    text = "all" if str(value) == "-1" else str(value)
    if text not in {"0", "1", "all"} or isinstance(value, bool):
        raise ConfigurationError(f'acks is {value!r}: use "0", "1" or "all"')
    return text


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


def _obstacle_to_idempotence(config: Mapping[str, Any]) -> str | None:
    """Return why the broker could not recognise a repeated batch with these settings, if it could not."""
    if config["acks"] != "all":
        return f'acks={config["acks"]} (the broker must confirm with acks="all")'
    if config["retries"] < 1:
        return "retries=0 (it needs at least one)"
    in_flight = config["max.in.flight.requests.per.connection"]
    if in_flight > _IDEMPOTENCE_MAX_IN_FLIGHT:
        return f"max_in_flight_requests_per_connection={in_flight} (it allows {_IDEMPOTENCE_MAX_IN_FLIGHT})"
    return None


def _is_true(config: Mapping[str, Any], name: str) -> bool:
    """Read a boolean option as librdkafka does."""
    text = str(config.get(name, False)).lower()
    if text not in _TRUE | _FALSE:
        raise ConfigurationError(f"{name} is {config[name]!r}: use true or false")
    return text in _TRUE


def _settle_idempotence(config: dict[str, Any], wanted: bool | None, *, explicit: bool) -> None:
    obstacle = _obstacle_to_idempotence(config)
    if explicit:
        wanted = _is_true(config, "enable.idempotence")
    if wanted and obstacle:
        raise ConfigurationError(f"idempotence is not possible with {obstacle}: change one of the two")
    config["enable.idempotence"] = obstacle is None if wanted is None else wanted


def _check_security(config: Mapping[str, Any]) -> None:
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
