"""What an event says reaches logs, errors and terminals as one line that shows itself as it is."""

from __future__ import annotations

import logging

import pytest

from airflow_workflow_events import EmbeddedBroker, WorkflowEventConsumer, WorkflowEventProducer
from airflow_workflow_events.errors import EventTooLargeError, printable
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.kafka.pending import timeout_error
from tests.events import make_event
from tests.messages import make_message

FORGED = "id\r\nCRITICAL forged \x1b[31m\u202etxt.exe\u2028\x00\x85"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("daily_sales/größe 7", "daily_sales/größe 7"),
        ("a\r\nb\x1b[0m\x7f", "a\\r\\nb\\x1b[0m\\x7f"),
        ("\u202e\u2066\u200b\u2028", "\\u202e\\u2066\\u200b\\u2028"),
        ("\ud800", "\\ud800"),
        (7, "7"),
    ],
)
def test_a_text_from_outside_is_shown_on_one_line(text: object, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["x" * 5_000, "\n" * 5_000, "x" * 1_000 + "\n" * 10])
def test_it_is_short(text: str) -> None:
    assert len(printable(text)) == 1_000
    assert printable(text).isprintable()


def test_errors_that_name_an_event_are_one_line() -> None:
    for error in (EventTooLargeError(FORGED, 2, 1), timeout_error(FORGED, 1)):
        assert str(error).isprintable()


def test_no_event_forges_a_line_in_the_log_of_producer_or_consumer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "airflow_workflow_events")

    def fail(_event: object) -> None:
        raise ValueError(FORGED)

    with EmbeddedBroker() as broker:
        broker.create_topic("dead")
        with WorkflowEventProducer(broker.bootstrap_servers, topic="events") as producer:
            assert producer.publish_event(make_event(event_id=FORGED, workflow_id=FORGED), timeout=60)
        with WorkflowEventConsumer(
            broker.bootstrap_servers,
            "forged",
            topic="events",
            start_from="earliest",
            dead_letter_topic="dead",
            consumer_timeout_ms=3_000,
        ) as consumer:
            consumer.run(fail, max_retries=1, retry_backoff_ms=1)

    texts = [record.getMessage() for record in caplog.records]
    assert any("forged" in text and "was delivered" in text for text in texts)
    assert any("handling event id\\r\\nCRITICAL" in text for text in texts)
    assert any("was sent to dead-letter topic" in text for text in texts)
    assert [text for text in texts if "forged" in text and not text.isprintable()] == []


def test_the_reason_on_a_dead_letter_is_one_line() -> None:
    topic = DeadLetterTopic({"bootstrap.servers": "127.0.0.1:1"}, "dead", None)

    _, reason = topic._headers(make_message(), ValueError(FORGED), 1)

    assert all(isinstance(value, bytes) and value.decode().isprintable() for _, value in reason)
