"""Brokers to measure against, each in a process of its own so that its CPU time is nobody's.

As a program, ``python -m benchmarks.broker ROUND_TRIP_MS``, it is the embedded broker until its stdin is
closed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException

from airflow_workflow_events import EmbeddedBroker
from benchmarks.events import PARTITIONS, TOPIC

ROOT = Path(__file__).resolve().parents[1]
JARS_DIR = ROOT / ".work" / "kafka-jars"


class NoBrokerError(Exception):
    """There is no real Kafka here; the message says why."""


@contextmanager
def embedded(round_trip_ms: int = 0) -> Iterator[str]:
    """Run an embedded broker in another process; gives its bootstrap servers."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.broker", str(round_trip_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


@contextmanager
def down() -> Iterator[str]:
    """Give an address of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """Give an address at which connections are taken and nothing is ever answered, as behind a black hole."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def real() -> Iterator[str]:
    """Give the bootstrap servers of a real Kafka: ``BOOTSTRAP_SERVERS``, or one started from Maven's jars.

    Raises:
        NoBrokerError: neither is to be had.
    """
    given = os.environ.get("BOOTSTRAP_SERVERS")
    if given:
        create_topic(given, TOPIC, PARTITIONS)
        yield given
        return
    try:
        from tests.brokers.jvm import KafkaCluster, KafkaUnavailable, kafka_jars
    except ImportError as error:
        raise NoBrokerError(f"no BOOTSTRAP_SERVERS, and {error}") from None
    try:
        jars = kafka_jars(JARS_DIR)
    except KafkaUnavailable as error:
        raise NoBrokerError(f"no BOOTSTRAP_SERVERS, and {str(error).splitlines()[0]}") from None
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-kafka-") as directory,
        KafkaCluster(jars, Path(directory)) as cluster,
    ):
        create_topic(cluster.bootstrap_servers, TOPIC, PARTITIONS)
        yield cluster.bootstrap_servers


def create_topic(servers: str, topic: str, partitions: int) -> None:
    """Create a topic, if it is not there."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": servers})
    try:
        admin.create_topics([NewTopic(topic, partitions)], request_timeout=30)[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def main() -> None:
    with EmbeddedBroker(topics={TOPIC: PARTITIONS}) as broker:
        broker.set_round_trip_ms(int(sys.argv[1]))
        print(broker.bootstrap_servers, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
