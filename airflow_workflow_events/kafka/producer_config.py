"""From the guide's parameters to a checked librdkafka configuration of a producer.

It knows the few combinations that librdkafka accepts although they break the producer's promises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka.config import (
    IDLE_OPTIONS,
    broker_addresses,
    check_security,
    check_types,
    check_whole_number,
    is_true,
    own_options,
    whole_number,
)

_IDEMPOTENCE_MAX_IN_FLIGHT = 5  # librdkafka refuses more, as the broker keeps five batches per producer id
_NUMBERS = (
    "retries",
    "max.in.flight.requests.per.connection",
    "request.timeout.ms",
    "message.timeout.ms",
)


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
        options: further librdkafka options, of named parameters.
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
    own = own_options(config)
    if "acks" in own:
        own["acks"] = _acks(own["acks"])
    merged: dict[str, Any] = {
        "bootstrap.servers": broker_addresses(bootstrap_servers),
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
        **IDLE_OPTIONS,
        **options,
        **own,
    }
    check_types(merged)
    for name in _NUMBERS:
        merged[name] = whole_number(merged, name)
    if is_true(merged, "delivery.report.only.error"):
        raise ConfigurationError(
            "delivery.report.only.error is on: no event could ever be confirmed; leave it out"
        )
    _settle_idempotence(merged, enable_idempotence, explicit="enable.idempotence" in own)
    check_security(merged)
    return merged


def _acks(value: str | int) -> str:
    text = "all" if str(value) == "-1" else str(value)
    if text not in {"0", "1", "all"} or isinstance(value, bool):
        raise ConfigurationError(f'acks is {value!r}: use "0", "1" or "all"')
    return text


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


def _settle_idempotence(config: dict[str, Any], wanted: bool | None, *, explicit: bool) -> None:
    obstacle = _obstacle_to_idempotence(config)
    if explicit:
        wanted = is_true(config, "enable.idempotence")
    if wanted and obstacle:
        raise ConfigurationError(f"idempotence is not possible with {obstacle}: change one of the two")
    config["enable.idempotence"] = obstacle is None if wanted is None else wanted
