"""The consumer's parameters become librdkafka's options, and what would break a promise is refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_workflow_events import ConfigurationError, WorkflowEventConsumer
from airflow_workflow_events.kafka.consumer_config import consumer_config
from airflow_workflow_events.kafka.positions import StartFrom, check_start

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def config_of(**options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "bootstrap_servers": "kafka:9092",
        "group_id": "group",
        "max_poll_interval_ms": 300_000,
        "max_buffered_kib": 16_384,
        "options": {},
        "config": None,
    }
    return consumer_config(**(defaults | options))


def test_only_what_was_stored_as_handled_is_committed() -> None:
    config = config_of()
    assert config["enable.auto.offset.store"] is False
    assert config["enable.auto.commit"] is True
    assert config["group.id"] == "group"


def test_without_a_group_nothing_is_committed() -> None:
    assert config_of(group_id=None)["enable.auto.commit"] is False


@pytest.mark.parametrize(
    "name",
    ["enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset", "group.id"],
)
def test_what_decides_about_commits_cannot_be_set(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"config sets {name}"):
        config_of(config={name: "x"})


def test_other_options_win_over_the_parameters() -> None:
    config = config_of(options={"client.id": "one"}, config={"client.id": "two", "fetch.wait.max.ms": 5})
    assert (config["client.id"], config["fetch.wait.max.ms"]) == ("two", 5)


def test_a_session_does_not_outlast_a_short_interval() -> None:
    assert config_of(max_poll_interval_ms=10_000)["session.timeout.ms"] == 10_000
    assert "session.timeout.ms" not in config_of()
    assert (
        config_of(max_poll_interval_ms=10_000, config={"session.timeout.ms": 6_000})["session.timeout.ms"]
        == 6_000
    )
    assert config_of(config={"session.timeout.ms": 1_500})["heartbeat.interval.ms"] == 500
    assert config_of(max_poll_interval_ms=40_000)["heartbeat.interval.ms"] == 3_000
    assert "heartbeat.interval.ms" not in config_of()
    # The brokers decide it there, and librdkafka refuses a configuration that has it.
    assert "session.timeout.ms" not in config_of(
        max_poll_interval_ms=10_000, config={"group.protocol": "consumer"}
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"group_id": ""}, "group_id is ''"),
        ({"group_id": " \t"}, "group_id is"),
        ({"group_id": "a\0b"}, "group_id is"),
        ({"group_id": 7}, "group_id is 7"),
        ({"max_poll_interval_ms": 0}, "max_poll_interval_ms"),
        ({"max_buffered_kib": True}, "max_buffered_kib"),
        ({"bootstrap_servers": ""}, "bootstrap_servers"),
        ({"bootstrap_servers": "http://kafka:9092"}, "use host:port, without http://"),
        ({"config": {"client.id": b"x"}}, "client.id is of type bytes"),
        ({"config": {"sasl.password": "x"}}, "SASL is configured"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        config_of(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"topic": []}, "topic is an empty list"),
        ({"topic": "no topic"}, "not a legal Kafka topic"),
        ({"topic": ["good", ""]}, "not a legal Kafka topic"),
        ({"dead_letter_topic": "workflow-events"}, "would come again"),
        ({"topic": None}, "topic is None: use a topic's name"),
        ({"topic": 5}, "topic is 5"),
        ({"topic": b"x"}, "topic is b'x'"),
        ({"topic": [None]}, "not a legal Kafka topic"),
        ({"dead_letter_topic": "no topic"}, "not a legal Kafka topic"),
        ({"dead_letter_topic": ""}, "dead_letter_topic '' is not a legal Kafka topic"),
        ({"seen": []}, "seen is of type list, which has no add"),
        ({"seen": True}, "no __contains__ and no add"),
        ({"metrics": 5}, "metrics is of type int, which has no incr"),
        ({"start_from": "committed"}, "without a group_id"),
        ({"start_from": "yesterday"}, "start_from is 'yesterday'"),
        ({"start_from": NOW.replace(tzinfo=None)}, "no time zone"),
        ({"start_from": dt.timedelta(seconds=-1)}, "positive timedelta"),
        ({"start_from": dt.timedelta.max}, "start_from"),
        ({"consumer_timeout_ms": 0}, "consumer_timeout_ms"),
        ({"max_event_bytes": 0}, "max_event_bytes"),
        ({"connect_timeout_ms": 0}, "connect_timeout_ms"),
        ({"data": {"rows": {"$regex": "x"}}}, r"\$regex"),
        ({"config": {"no.such.option": 1}}, "librdkafka refuses"),
    ],
)
def test_the_constructor_refuses_before_it_connects(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        WorkflowEventConsumer("127.0.0.1:1", **options)


@pytest.mark.parametrize("start", ["earliest", "latest", StartFrom.COMMITTED, NOW, dt.timedelta(0)])
def test_every_way_to_begin_is_known(start: Any) -> None:
    assert check_start(start, in_group=True) == start
