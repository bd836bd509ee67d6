"""What one particular broker knows of its cluster."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]  # noqa: TID253

QUIET: dict[str, str | int] = {"log_level": 0}
"""Client settings: a broker that is not there yet is nothing to print an error about."""

_TIMEOUT_SECONDS = 2.0


def metadata_from(
    address: str, settings: Mapping[str, str], topic: str | None = None
) -> ClusterMetadata | None:
    """What the broker at ``address`` says of the cluster; ``None`` when it does not answer.

    Args:
        address: ``host:port`` of one of the broker's listeners.
        settings: how to log in there, for a confluent_kafka client.
        topic: the topic to ask about, which is not created; by default, all there are.
    """
    host, port = address.split(":")
    try:
        # Cheaper than a client that cannot connect.
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_SECONDS).close()
        # A consumer and not an AdminClient, which would have the broker create the topic asked for.
        # It also looks for its group, and thereby has the cluster create the topic of the groups'
        # offsets: the first consumer in a test would lose seconds to that.
        consumer = Consumer({**settings, **QUIET, "bootstrap.servers": address, "group.id": "probe"})
        try:
            if topic is None:
                metadata = consumer.list_topics(timeout=_TIMEOUT_SECONDS)
            else:
                metadata = consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS)
        finally:
            consumer.close()
    except (OSError, KafkaException):
        return None
    # The client learns of the other brokers as it connects, and may have asked one of them.
    return metadata if f"{address}/" in str(metadata.orig_broker_name) else None
