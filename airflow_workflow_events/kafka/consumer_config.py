"""From the consumer's parameters to a checked librdkafka configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka.config import (
    MAX_IDLE_MS,
    broker_addresses,
    check_group_id,
    check_security,
    check_types,
    check_whole_number,
    own_options,
    whole_number,
)

# librdkafka wants a group even of a consumer that joins none, and looks for its coordinator. Without a commit
# it exists on no broker, and it needs no grant. Its name has the prefix of the groups that the docs name.
_NO_GROUP = "airflow-workflow-events.none"

#: How soon new partitions and topics are found, in milliseconds. librdkafka's default is five minutes.
METADATA_REFRESH_MS = 10_000

#: What differs from librdkafka's own defaults and may be set otherwise.
DEFAULTS: dict[str, Any] = {
    # A consumer makes no topics: a name with a typo would become one.
    "allow.auto.create.topics": False,
    "connections.max.idle.ms": MAX_IDLE_MS,
    "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
    # The broker answers as soon as there is an event; this is how long it holds a request without one.
    "fetch.wait.max.ms": 500,
    # How long librdkafka waits after an empty or failed fetch: its default of 500 ms would be a delay.
    "fetch.error.backoff.ms": 100,
    # How long it fetches nothing once max_buffered_kib are fetched ahead. Its default of 1,000 ms is longer
    # than it takes to handle as much.
    "fetch.queue.backoff.ms": 20,
}

# These decide when an event counts as handled; the consumer's promise stands on them.
_SETTLED = ("enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset", "group.id")


def consumer_config(
    *,
    bootstrap_servers: str | Iterable[str],
    group_id: str | None,
    max_poll_interval_ms: int,
    max_buffered_kib: int,
    options: Mapping[str, Any],
    config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return librdkafka's configuration for a consumer.

    Args:
        bootstrap_servers: ``host:port`` addresses, a comma separated string or an iterable.
        group_id: the consumer group, or ``None`` for none.
        max_poll_interval_ms: how long one event may take before the group gives its partitions to others.
        max_buffered_kib: how much may be fetched ahead, in KiB.
        options: further librdkafka options, of named parameters.
        config: the user's own librdkafka options; they win over everything but what decides about commits.

    Raises:
        ConfigurationError: a value or a combination is wrong.
    """
    if group_id is not None:
        check_group_id(group_id)
    check_whole_number("max_poll_interval_ms", max_poll_interval_ms, minimum=1)
    check_whole_number("max_buffered_kib", max_buffered_kib, minimum=1)
    own = own_options(config)
    for name in _SETTLED:
        if name in own:
            raise ConfigurationError(
                f"config sets {name}, which the consumer decides itself: use group_id and start_from"
            )
    merged: dict[str, Any] = {
        "bootstrap.servers": broker_addresses(bootstrap_servers),
        "max.poll.interval.ms": max_poll_interval_ms,
        "queued.max.messages.kbytes": max_buffered_kib,
        **DEFAULTS,
        **options,
        **own,
        "group.id": _NO_GROUP if group_id is None else group_id,
        # librdkafka commits in the background, on rebalances and on closing, and only what was stored as
        # handled. A consumer without a group has nothing to commit.
        "enable.auto.commit": group_id is not None,
        "enable.auto.offset.store": False,
        # Where to begin is decided per partition when it is assigned. This is for an offset that retention
        # has removed meanwhile: the oldest event that is still there comes next.
        "auto.offset.reset": "earliest",
    }
    check_types(merged)
    interval = whole_number(merged, "max.poll.interval.ms")
    by_brokers = str(merged.get("group.protocol", "")).lower() == "consumer"  # these set the session, too
    if "session.timeout.ms" not in merged and interval < 45_000 and not by_brokers:
        # librdkafka refuses a session that outlasts the interval; 45 s is its default.
        merged["session.timeout.ms"] = interval
    if "session.timeout.ms" in merged and "heartbeat.interval.ms" not in merged and not by_brokers:
        # At librdkafka's default of 3 s a short session would be over before the first heartbeat.
        merged["heartbeat.interval.ms"] = min(max(whole_number(merged, "session.timeout.ms") // 3, 1), 3_000)
    check_security(merged)
    return merged
