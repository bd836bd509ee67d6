"""What is known of a client's connection, and said of it."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError as Code

from airflow_workflow_events.kafka import connection
from airflow_workflow_events.kafka.connection import Connection
from airflow_workflow_events.kafka.topics import connection_options


def test_warnings_of_a_kind_come_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(connection, "monotonic", lambda: now)
    one = Connection({"bootstrap.servers": "localhost:9092"})
    for number in range(100):
        one.warn(f"the broker refuses the credentials (after {number}ms in state AUTH_REQ)")
    one.warn("another kind")
    now += 61
    one.warn("the broker refuses the credentials (after 7ms in state AUTH_REQ)")

    assert [record.getMessage() for record in caplog.records] == [
        "the broker refuses the credentials (after 0ms in state AUTH_REQ)",
        "another kind",
        "the broker refuses the credentials (after 7ms in state AUTH_REQ)",
    ]


def test_a_client_of_another_kind_reaches_the_cluster_by_the_same_way() -> None:
    way = {
        "bootstrap.servers": "localhost:9092",
        "client.dns.lookup": "resolve_canonical_bootstrap_servers_only",
        "https.ca.location": "/etc/ca.pem",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
    }

    assert connection_options({**way, "group.id": "billing", "enable.auto.commit": False}) == way


def test_what_brought_the_brokers_down_is_said_however_long_ago_it_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """librdkafka 2.15 tells the same cause but once, and every second that 0/1 brokers are down."""
    now = 1_000.0
    monkeypatch.setattr(connection, "monotonic", lambda: now)
    one = Connection({"bootstrap.servers": "localhost:9092"})
    one.note(Code(Code._TRANSPORT, "localhost:9092/b: Connect failed: Connection refused"))
    for _ in range(30):
        now += 1
        one.note(Code(Code._ALL_BROKERS_DOWN, "0/1 brokers are down"))
    assert "Connection refused" in str(one.trouble_since(now - 5))

    one.accept()
    now += 10
    one.note(Code(Code._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert "1/1 brokers are down" in str(one.trouble_since(now - 5))
    assert one.trouble_since(now + 1) is None
