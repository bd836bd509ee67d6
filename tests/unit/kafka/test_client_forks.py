"""Clients of librdkafka that are opened beside a fork, or were opened before it."""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import confluent_kafka
import pytest

from airflow_workflow_events import WorkflowEventProducer, forks
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.group_offsets import GroupOffsets
from airflow_workflow_events.kafka.topics import check_writable
from tests.broker import Broker
from tests.events import make_event
from tests.forking import ends_in_child

_PATIENCE_SECONDS = 60


def _read_offsets(config: dict[str, Any], topic: str) -> None:
    offsets = GroupOffsets(lambda: config)
    offsets.committed("group", topic)
    offsets.forget("group")


def _send_dead_letter(config: dict[str, Any], topic: str) -> None:
    consumer = confluent_kafka.Consumer({**config, "group.id": "dead", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(_PATIENCE_SECONDS)
    consumer.close()
    assert message is not None
    assert DeadLetterTopic(config, topic, "group").send(message, ValueError("it is wrong"))


def _check_topic(config: dict[str, Any], topic: str) -> None:
    check_writable({**config, "enable.idempotence": True}, topic, timeout_seconds=2)


@pytest.fixture
def topic(embedded_broker: Broker) -> str:
    """A topic with an event on it."""
    name = f"forked-{uuid.uuid4()}"
    embedded_broker.create_topic(name)
    with WorkflowEventProducer(embedded_broker.bootstrap_servers, topic=name) as producer:
        assert producer.publish_event(make_event(), timeout=_PATIENCE_SECONDS)
    return name


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("Consumer", _read_offsets),
        ("Producer", _send_dead_letter),
        ("Consumer", _check_topic),
        ("Producer", _check_topic),
    ],
)
def test_a_fork_waits_until_a_client_is_open(
    embedded_broker: Broker,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    work: Callable[[dict[str, Any], str], None],
) -> None:
    opening, go_on = threading.Event(), threading.Event()
    client: Any = getattr(confluent_kafka, kind)

    class SlowToOpen(client):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            opening.set()
            go_on.wait(_PATIENCE_SECONDS)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(forks, "WAIT_SECONDS", float(_PATIENCE_SECONDS))
    monkeypatch.setattr(confluent_kafka, kind, SlowToOpen)
    config = {"bootstrap.servers": embedded_broker.bootstrap_servers}
    thread = threading.Thread(target=work, args=(config, topic), daemon=True)
    thread.start()
    assert opening.wait(_PATIENCE_SECONDS)
    threading.Timer(0.2, go_on.set).start()

    assert ends_in_child(lambda: go_on.is_set() or sys.exit(1))
    thread.join(_PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_a_child_commits_offsets_through_a_client_of_its_own(embedded_broker: Broker, topic: str) -> None:
    offsets = GroupOffsets(lambda: {"bootstrap.servers": embedded_broker.bootstrap_servers})
    offsets.commit("of both", {(topic, 0): 1})

    assert ends_in_child(lambda: offsets.commit("of both", {(topic, 0): 2}))
    assert (offsets.committed("of both", topic) or {})[topic, 0] == 2
    offsets.forget("of both")
