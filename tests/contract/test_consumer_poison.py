"""What is no workflow event never stops the consumer: it is skipped, or kept in a dead-letter topic."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Producer

from airflow_workflow_events import EmbeddedBroker
from airflow_workflow_events.errors import KafkaAuthorizationError, KafkaError
from airflow_workflow_events.events.codec import encode, to_json
from airflow_workflow_events.kafka import dead_letters
from airflow_workflow_events.kafka.dead_letters import DeadLetterTopic
from airflow_workflow_events.metrics import CONSUMED, DEAD_LETTERED, POISON
from tests.broker import Broker, embedded, headers_of
from tests.brokers.jvm import SecureListener
from tests.contract.consuming import (
    IDLE_MS,
    committed,
    consumer_of,
    new_group,
    numbers,
    publish,
    put,
    take,
)
from tests.contract.raw_headers import put_with_header
from tests.counting import Counting
from tests.events import make_event

GOOD = make_event(payload={"data": {"number": 1}})
NO_ID = json.dumps({**json.loads(to_json(GOOD)), "event_id": None}).encode()
POISONS = {
    "a tombstone": None,
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "another shape": b'{"hello": "world"}',
    "bytes": bytes(range(256)),
    "no id": NO_ID,
    "too deep": b"[" * 100_000,
    "too large": json.dumps({"x": "y" * 200_000}).encode(),
}


@pytest.fixture
def dead(broker: Broker) -> str:
    """A topic for dead letters."""
    name = f"events-dead-{uuid.uuid4()}"
    broker.create_topic(name)
    return name


def test_poison_of_every_kind_is_skipped_counted_and_read_past(
    broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(broker, topic, *POISONS.values(), partition=0)
    put(broker, topic, to_json(GOOD), partition=0)
    group, counting = new_group(), Counting()

    with consumer_of(broker, topic, group, metrics=counting, max_event_bytes=100_000) as consumer:
        assert take(consumer, 1) == [GOOD]
        assert consumer.poison_count == len(POISONS)

    assert counting.counts == {POISON: len(POISONS), CONSUMED: 1}
    assert committed(broker, topic, group) == len(POISONS) + 1
    assert caplog.text.count("is no workflow event and was skipped") == 1, "a flood is one warning"
    assert f"{len(POISONS) - 1} more message(s) were no workflow event" in caplog.text


def test_a_dead_letter_whose_headers_cannot_be_read_is_one_without_them(
    broker: Broker, topic: str, dead: str
) -> None:
    put_with_header(broker.bootstrap_servers, topic, b"x" * 2_000, b"\xff\xfe")
    publish(broker, topic, [1])
    options = {"max_event_bytes": 1_500, "dead_letter_topic": dead, "consumer_timeout_ms": IDLE_MS}
    with consumer_of(broker, topic, new_group(), **options) as consumer:
        assert numbers(consumer) == [1]

    (letter,) = broker.messages(dead, 1)
    assert letter.value() == b"x" * 2_000
    assert b"more than max_event_bytes" in headers_of(letter)["dead_letter_reason"]


def test_an_event_is_one_whatever_its_headers_say(broker: Broker, topic: str) -> None:
    value = to_json(GOOD)
    put(broker, topic, value, headers=[("content-type", b"application/cloudevents+json")])
    put(broker, topic, value, headers=[("content-type", None), ("ce_id", b"\xff"), ("", b"")])
    put_with_header(broker.bootstrap_servers, topic, value, b"\xff\xfe")

    with consumer_of(broker, topic, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == [GOOD] * 3
        assert consumer.poison_count == 0


def test_headers_that_cannot_be_read_are_taken_from_the_message(broker: Broker, topic: str) -> None:
    put_with_header(broker.bootstrap_servers, topic, to_json(GOOD), b"\xff\xfe")

    with consumer_of(broker, topic, consumer_timeout_ms=IDLE_MS) as consumer:
        [received] = consumer.records()

    assert received.event == GOOD
    assert not received.message.headers(), "which would end the process"


def test_what_is_neither_an_envelope_nor_an_event_is_skipped_whatever_its_headers_say(
    broker: Broker, topic: str
) -> None:
    put(broker, topic, b"{}", headers=[("content-type", b"application/cloudevents+json")])
    put_with_header(broker.bootstrap_servers, topic, b"{}", b"\xff\xfe")

    with consumer_of(broker, topic, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []
        assert consumer.poison_count == 2


def test_dead_letters_are_the_message_as_it_was_and_the_reason(broker: Broker, topic: str, dead: str) -> None:
    put(broker, topic, b"{", key=b"k", headers=[("mine", b"\xff"), ("empty", None)], partition=2)
    put(broker, topic, None, key=b"t", partition=2)
    put_with_header(broker.bootstrap_servers, topic, b"[]", b"\xff")
    publish(broker, topic, [1])
    group, counting = new_group(), Counting()

    with consumer_of(
        broker, topic, group, dead_letter_topic=dead, metrics=counting, consumer_timeout_ms=IDLE_MS
    ) as consumer:
        assert numbers(consumer) == [1]

    letters = broker.messages(dead, 3)
    by_key = {message.key(): message for message in letters}
    letter = by_key[b"k"]
    headers: dict[str, Any] = headers_of(letter)
    assert letter.value() == b"{"
    assert (headers.pop("mine"), headers.pop("empty")) == (b"\xff", None)
    assert headers.pop(dead_letters.REASON_HEADER).startswith(b"the value is not JSON")
    assert headers == {
        dead_letters.ERROR_HEADER: b"EventDecodeError",
        dead_letters.TOPIC_HEADER: topic.encode(),
        dead_letters.PARTITION_HEADER: b"2",
        dead_letters.OFFSET_HEADER: b"0",
        dead_letters.GROUP_HEADER: group.encode(),
        dead_letters.ATTEMPTS_HEADER: b"0",
    }
    assert by_key[b"t"].value() is None
    assert b"tombstone" in headers_of(by_key[b"t"])[dead_letters.REASON_HEADER]
    assert counting.counts == {POISON: 3, DEAD_LETTERED: 3, CONSUMED: 1}
    assert committed(broker, topic, group) == 4


def test_a_letter_that_is_replayed_and_fails_again_has_its_latest_reason_only(
    broker: Broker, topic: str, dead: str
) -> None:
    old = [(dead_letters.REASON_HEADER, b"old"), (dead_letters.TRUNCATED_HEADER, b"true"), ("mine", b"1")]
    put(broker, topic, b"{", headers=old)
    with consumer_of(broker, topic, dead_letter_topic=dead, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []

    (letter,) = broker.messages(dead, 1)
    headers: Any = letter.headers()
    names = Counter(name for name, _ in headers)
    assert names[dead_letters.REASON_HEADER] == 1
    assert dead_letters.TRUNCATED_HEADER not in names
    assert dead_letters.GROUP_HEADER not in names
    assert headers_of(letter)["mine"] == b"1"


@pytest.mark.real_kafka
def test_a_message_that_leaves_no_room_for_the_reason_is_kept_without_its_value_and_at_worst_its_headers(
    real_broker: Broker,
) -> None:
    topic, dead = f"events-{uuid.uuid4()}", f"events-dead-{uuid.uuid4()}"
    real_broker.create_topic(topic)
    real_broker.create_topic(dead)
    large = {"message.max.bytes": 2_000_000}
    filler = b"x" * 1_048_400
    producer = Producer({"bootstrap.servers": real_broker.bootstrap_servers, "log_level": 0} | large)
    producer.produce(topic, value=filler, key=b"value", headers=[("mine", b"1")])
    producer.produce(topic, value=b"{", key=b"headers", headers=[("mine", filler)])
    producer.produce(topic, value=b"{", key=filler)
    assert producer.flush(30) == 0

    with consumer_of(real_broker, topic, dead_letter_topic=dead, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []
        assert consumer.poison_count == 3

    letters = {message.key(): headers_of(message) for message in real_broker.messages(dead, 3)}
    assert letters.keys() == {b"value", b"headers", None}
    assert letters[b"value"]["mine"] == b"1"
    assert all(headers[dead_letters.TRUNCATED_HEADER] == b"true" for headers in letters.values())
    assert all(headers[dead_letters.TOPIC_HEADER] == topic.encode() for headers in letters.values())


def test_a_handler_that_fails_for_good_sends_its_event_there_and_the_next_is_handled(
    broker: Broker, topic: str, dead: str
) -> None:
    publish(broker, topic, range(3), workflow_run_id="one")
    group, counting = new_group(), Counting()
    handled = []

    def handle(event: object) -> None:
        number = event.payload.data["number"]  # type: ignore[attr-defined]
        if number == 1:
            raise LookupError("no such order")
        handled.append(number)

    with consumer_of(
        broker, topic, group, dead_letter_topic=dead, metrics=counting, consumer_timeout_ms=IDLE_MS
    ) as consumer:
        assert consumer.run(handle, max_retries=1, retry_backoff_ms=1) == 2

    (letter,) = broker.messages(dead, 1)
    headers = headers_of(letter)
    assert handled == [0, 2]
    assert headers[dead_letters.REASON_HEADER] == b"no such order"
    assert headers[dead_letters.ERROR_HEADER] == b"LookupError"
    assert headers[dead_letters.ATTEMPTS_HEADER] == b"2"
    assert headers["ce_type"] == b"workflow.completed", "the event can be replayed as it was"
    assert counting.counts[DEAD_LETTERED] == 1
    assert committed(broker, topic, group) == 3


@pytest.mark.real_kafka
def test_a_dead_letter_topic_that_may_not_be_written_to_is_an_error_and_the_commits_end_before_it(
    secure_listener: SecureListener, real_broker: Broker
) -> None:
    topic, group = f"events-{uuid.uuid4()}", new_group()
    real_broker.create_topic(topic)
    put(real_broker, topic, to_json(GOOD), b"{", to_json(GOOD), partition=0)
    # Plain dictionaries, as the listener's users have passwords that no error may show.
    security = secure_listener.client_settings("reader")
    consumer = consumer_of(
        Broker(secure_listener.bootstrap_servers, "jvm", lambda _name: None),
        topic,
        group,
        dead_letter_topic=f"events-dead-{uuid.uuid4()}",
        config={name: value for name, value in security.items() if name != "bootstrap.servers"},
    )
    with pytest.raises(KafkaAuthorizationError, match=r"dead-letter topic events-dead-.* did not take"):
        take(consumer, 3)
    with pytest.raises(KafkaAuthorizationError):
        take(consumer, 1)
    consumer.close()

    assert committed(real_broker, topic, group) == 1, "what was handed out before it is handled"


def test_an_event_that_is_filtered_out_is_no_poison(broker: Broker, topic: str) -> None:
    publish(broker, topic, [1])
    with consumer_of(broker, topic, workflow_id="other", consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []
        assert consumer.poison_count == 0


def test_dead_letters_wait_for_a_broker_that_refuses_for_the_moment(
    embedded_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, dead = f"events-{uuid.uuid4()}", f"events-dead-{uuid.uuid4()}"
    embedded_broker.create_topic(topic)
    put(embedded_broker, topic, b"{")
    outcomes: list[KafkaError | None] = [KafkaError("later", retriable=True)] * 2
    genuine = DeadLetterTopic._attempt
    monkeypatch.setattr(
        DeadLetterTopic,
        "_attempt",
        lambda self, *args: outcomes.pop() if outcomes else genuine(self, *args),
    )
    with consumer_of(embedded_broker, topic, dead_letter_topic=dead, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []

    assert len(embedded_broker.messages(dead, 1)) == 1


def test_structured_and_binary_events_are_dead_lettered_with_their_layout(
    broker: Broker, topic: str, dead: str
) -> None:
    record = encode(GOOD)
    put(broker, topic, b"{" + record.value, key=record.key, headers=record.headers)
    with consumer_of(broker, topic, dead_letter_topic=dead, consumer_timeout_ms=IDLE_MS) as consumer:
        assert list(consumer) == []

    (letter,) = broker.messages(dead, 1)
    assert headers_of(letter).items() >= dict(record.headers).items()
    assert letter.key() == record.key


def test_an_error_that_is_fatal_to_the_dead_letter_producer_is_not_to_the_consumer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_letters, "_PAUSE_SECONDS", 0.01)
    topic, letters = new_group(), new_group()
    with EmbeddedBroker(topics={topic: 1, letters: 1}) as server:
        faulty = embedded(server)
        put(faulty, topic, b"{", to_json(GOOD))
        server.fail_produce_requests([confluent_kafka.KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])

        with consumer_of(faulty, topic, dead_letter_topic=letters) as consumer:
            assert take(consumer, 1) == [GOOD]
            assert consumer.poison_count == 1
        with consumer_of(faulty, letters, consumer_timeout_ms=IDLE_MS) as consumer:
            assert list(consumer) == []
            assert consumer.poison_count == 1
