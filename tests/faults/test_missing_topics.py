"""A topic that does not exist, where brokers make none by themselves, delays no other and is named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.errors import KafkaTimeoutError
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.kafka.last_publish import TOPIC_PATIENCE_MS, publish_and_close
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests import broker as brokers
from tests.broker import Broker, event_of
from tests.conftest import running_cluster
from tests.events import make_event
from tests.waiting import await_condition

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def strict(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that makes no topics by itself."""
    directory = tmp_path_factory.mktemp("strict")
    with running_cluster(pytestconfig, directory, auto_create_topics=False) as cluster:
        yield brokers.real(cluster.bootstrap_servers, "jvm")


def test_a_missing_topic_delays_no_other_and_takes_its_events_once_it_exists(
    strict: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "airflow_workflow_events.outbox.relay")
    strict.create_topic("there")

    def open_destination(_conn_id: str | None) -> ProducerDestination:
        return ProducerDestination(
            WorkflowEventProducer(
                strict.bootstrap_servers,
                topic="there",
                connect=False,
                failure_log_level=logging.DEBUG,
                config=RELAY_OPTIONS,
            )
        )

    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    background = BackgroundRelay(outbox, Relay(outbox, open_destination))
    background.start()
    try:
        for number in range(20):
            background.accept(make_event(event_id=f"bad{number}"), Route(None, f"missing{number}"))
        background.accept(make_event(event_id="first"))
        [message] = strict.messages("there", 1)
        assert event_of(message).event_id == "first"
        await_condition(
            lambda: outbox.totals().pending == 20, timeout_seconds=20, what="the first event to be settled"
        )
        await_condition(
            lambda: "UNKNOWN_TOPIC" in caplog.text, timeout_seconds=60, what="a warning about the topics"
        )
        warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert "topic missing" in warnings[0].getMessage()
        assert "UNKNOWN_TOPIC" in warnings[0].getMessage()
        background.accept(make_event(event_id="second"))
        assert len(strict.messages("there", 2)) == 2
        strict.create_topic("missing0")
        assert len(strict.messages("missing0", 1, timeout_seconds=90)) == 1
        await_condition(
            lambda: "topic missing0 takes events again" in caplog.text,
            timeout_seconds=60,
            what="word that it does",
        )
    finally:
        assert background.stop(60)


def test_an_event_for_a_missing_topic_was_not_sent_and_the_error_names_the_topic(strict: Broker) -> None:
    def publish(patience_ms: int, timeout: float) -> Exception | None:
        producer = WorkflowEventProducer(
            strict.bootstrap_servers, config={"topic.metadata.propagation.max.ms": patience_ms}
        )
        return publish_and_close(producer, make_event(), "nowhere", timeout).error

    told = str(publish(500, 60))
    assert "UNKNOWN_TOPIC" in told
    error = publish(60_000, 1)
    assert isinstance(error, KafkaTimeoutError)
    assert "it was not sent" in str(error)
    assert TOPIC_PATIENCE_MS <= 5_000
