"""The producer's promises, on the embedded broker and on a real Kafka."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import (
    CloudEventsMode,
    ConfigurationError,
    DeliveryReport,
    EventSerializationError,
    EventTooLargeError,
    KafkaError,
    ProducerClosedError,
    WorkflowEventProducer,
)
from airflow_workflow_events.errors import KafkaConnectionError, ReentrantCallError
from airflow_workflow_events.events import DEFAULT_TOPIC, to_json
from tests.broker import PARTITIONS, Broker, Consume, event_of, headers_of
from tests.contract.delivery_callbacks import in_a_delivery_callback
from tests.contract.murmur2 import partition_of
from tests.events import make_event, make_events
from tests.waiting import await_condition

TASKS = Path("/proc/self/task")
CANARY = "canary-7f3a"
ILLEGAL_TOPICS = ["", ".", "..", "with space", "a/b", "x" * 250, "ü"]
NOT_EVENTS: list[Any] = [None, {}, "event", object()]

Make = Callable[..., WorkflowEventProducer]


@pytest.fixture
def make_producer(broker: Broker, topic: str) -> Iterator[Make]:
    """Makes producers for the broker and the test's topic, and closes them."""
    made: list[WorkflowEventProducer] = []

    def make(**options: Any) -> WorkflowEventProducer:
        producer = WorkflowEventProducer(broker.bootstrap_servers, **({"topic": topic} | options))
        made.append(producer)
        return producer

    yield make
    for producer in made:
        producer.close()


@pytest.fixture
def producer(make_producer: Make) -> WorkflowEventProducer:
    return make_producer()


def run(program: str, *arguments: object) -> None:
    """Run one of the programs in ``processes``, which must end well within the time."""
    command = [sys.executable, "-m", f"tests.contract.processes.{program}", *map(str, arguments)]
    finished = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr


# Publishing one event


def test_a_published_event_is_on_the_topic_when_true_is_returned(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event(payload={"data": {"a": [1, None, "ü"]}})

    assert producer.publish_event(event) is True

    (message,) = consume(topic, 1)
    assert event_of(message) == event


def test_the_message_has_the_ordering_key_the_json_and_the_cloudevents_headers(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event()
    producer.publish_event(event)

    (message,) = consume(topic, 1)

    assert message.key() == event.ordering_key.encode()
    assert message.value() == to_json(event)
    assert {name: data.decode() for name, data in headers_of(message).items()} == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": event.event_id,
        "ce_source": "airflow",
        "ce_type": "workflow.completed",
        "ce_time": event.timestamp.isoformat().replace("+00:00", "Z"),
        "ce_subject": event.ordering_key,
    }


@pytest.mark.parametrize("mode", CloudEventsMode)
def test_an_event_published_in_any_mode_reads_as_it_was(
    mode: CloudEventsMode, make_producer: Make, topic: str, consume: Consume
) -> None:
    event = make_event(severity="high", metadata={"environment": "p", "traceparent": "00-1-2-01"})

    assert make_producer(cloudevents=mode.value).publish_event(event)

    (message,) = consume(topic, 1)
    assert event_of(message) == event
    assert headers_of(message)["traceparent"] == b"00-1-2-01"


def test_the_report_of_a_delivery_says_where_the_message_is(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event()

    report = producer.deliver(event)

    (message,) = consume(topic, 1)
    assert report == DeliveryReport(event.event_id, topic, message.partition(), message.offset())
    assert report.delivered


def test_an_event_goes_to_the_topic_of_the_call_in_place_of_the_producers(
    broker: Broker, make_producer: Make, topic: str, consume: Consume
) -> None:
    producer = make_producer(topic="another-topic")

    assert producer.publish_event(make_event(), topic=topic)
    assert producer.publish_events([make_event()], topic=topic)[0].delivered
    assert producer.send(make_event(), topic=topic).result(20).delivered

    assert len(consume(topic, 3)) == 3


def test_a_timeout_that_is_long_enough_changes_nothing(producer: WorkflowEventProducer) -> None:
    assert producer.publish_event(make_event(), timeout=20) is True


@pytest.mark.parametrize("acks", ["all", "1"])
def test_a_confirmed_event_has_an_offset(acks: str, make_producer: Make) -> None:
    assert make_producer(acks=acks).deliver(make_event()).offset == 0


def test_with_acks_0_nobody_confirms_and_the_report_has_no_offset(
    make_producer: Make, topic: str, consume: Consume
) -> None:
    # A broker that is only just becoming the partition's leader drops what nobody wants confirmed.
    assert make_producer().publish_event(make_event())

    report = make_producer(acks="0").deliver(make_event())

    assert report.delivered
    assert (report.partition, report.offset) == (None, None)
    assert len(consume(topic, 2)) == 2


def test_the_guides_custom_configuration_works(make_producer: Make) -> None:
    producer = make_producer(
        acks="1",
        retries=5,
        max_in_flight_requests_per_connection=2,
        request_timeout_ms=60_000,
        delivery_timeout_ms=180_000,
    )

    assert producer.publish_event(make_event(), timeout=30)


def test_an_event_as_large_as_allowed_gets_through_to_the_topic(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event(payload={"data": {"bulk": "x" * 920_000}})

    assert producer.publish_event(event)

    (message,) = consume(topic, 1)
    assert event_of(message) == event


# Where events go


def test_every_key_is_on_the_partition_javas_murmur2_gives_it(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    events = [
        make_event(workflow_id=f"workflow {number}", workflow_run_id="ü" * number or "r")
        for number in range(40)
    ]

    producer.publish_events(events)

    messages = consume(topic, 40)
    keys = {event.ordering_key.encode() for event in events}
    assert {message.key() for message in messages} == keys
    for message in messages:
        key = message.key()
        assert isinstance(key, bytes)
        assert message.partition() == partition_of(key, PARTITIONS)
    assert {message.partition() for message in messages} == set(range(PARTITIONS))


def test_the_events_of_a_run_stay_in_order_however_they_are_published(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    events = make_events(90)
    producer.publish_events(events[:30])
    for event in events[30:60]:
        producer.send(event)
    for event in events[60:]:
        producer.publish_event(event)

    read = [event_of(message).payload.data["number"] for message in consume(topic, 90)]

    assert read == list(range(90))


# Publishing many


def test_many_events_give_one_report_each_in_their_order(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    events = [make_event(workflow_id=f"w{number % 7}") for number in range(500)]

    reports = producer.publish_events(iter(events))

    assert [report.event_id for report in reports] == [event.event_id for event in events]
    assert all(report.delivered and report.topic == topic for report in reports)
    placed = {(report.partition, report.offset) for report in reports}
    assert placed == {(message.partition(), message.offset()) for message in consume(topic, 500)}


def test_no_events_give_no_reports(producer: WorkflowEventProducer) -> None:
    assert producer.publish_events([]) == []


def test_an_event_that_cannot_be_sent_does_not_keep_the_others_from_it(
    producer: WorkflowEventProducer, topic: str, consume: Consume, caplog: pytest.LogCaptureFixture
) -> None:
    large = make_event(payload={"data": {"bulk": "x" * 1_000_000}})
    changed = make_event()
    changed.payload.data["a"] = object()

    reports = producer.publish_events([make_event(), large, make_event(), changed, make_event()])

    assert [report.delivered for report in reports] == [True, False, True, False, True]
    assert isinstance(reports[1].error, EventTooLargeError)
    assert isinstance(reports[3].error, EventSerializationError)
    assert len(consume(topic, 3)) == 3
    for event in (large, changed):
        assert f"event {event.event_id} was not delivered" in caplog.text


def test_one_thing_that_is_no_event_keeps_all_from_being_sent(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    mixed: list[Any] = [make_event(), {"event_id": "1"}]

    with pytest.raises(TypeError, match=r"events\[1\] is a dict"):
        producer.publish_events(mixed)

    assert consume(topic, 0) == []


# Without waiting


def test_send_gives_a_future_of_the_report(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event()

    future = producer.send(event)

    report = future.result(20)
    (message,) = consume(topic, 1)
    assert report == DeliveryReport(event.event_id, topic, message.partition(), message.offset())
    assert not future.cancel()


def test_a_futures_callback_may_send_the_next_event(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    producer.send(make_event()).add_done_callback(lambda _: producer.send(make_event()))

    assert len(consume(topic, 2)) == 2


@pytest.mark.parametrize(
    "wait",
    [
        lambda producer: producer.publish_event(make_event()),
        lambda producer: producer.publish_events([make_event()]),
        lambda producer: producer.flush(),
        lambda producer: producer.close(),
    ],
    ids=["publish_event", "publish_events", "flush", "close"],
)
def test_waiting_in_a_futures_callback_is_refused_rather_than_endless(
    producer: WorkflowEventProducer,
    topic: str,
    consume: Consume,
    wait: Callable[[WorkflowEventProducer], Any],
) -> None:
    refusals: list[str] = []

    def wait_there() -> None:
        try:
            wait(producer)
        except ReentrantCallError as error:
            refusals.append(str(error))

    sent = in_a_delivery_callback(producer, wait_there)

    [refusal] = refusals
    assert "never end" in refusal
    assert producer.publish_event(make_event()), "the producer goes on"
    assert len(consume(topic, sent + 1)) == sent + 1, "what was refused was not sent"


def test_after_a_flush_every_future_is_done(producer: WorkflowEventProducer) -> None:
    futures = [producer.send(event) for event in make_events(300)]

    producer.flush()

    assert all(future.done() and future.result().delivered for future in futures)


def test_flushing_with_nothing_under_way_returns(producer: WorkflowEventProducer) -> None:
    producer.flush()
    producer.flush(timeout=0.5)


# Ending


def test_close_delivers_what_was_sent_and_says_so(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    for event in make_events(100):
        producer.send(event)

    assert producer.close() is True

    assert len(consume(topic, 100)) == 100


def test_closing_twice_does_nothing_the_second_time(producer: WorkflowEventProducer) -> None:
    assert producer.close()
    assert producer.close()
    assert producer.close(timeout=0)


def test_the_context_manager_delivers_and_closes(make_producer: Make, topic: str, consume: Consume) -> None:
    with make_producer() as producer:
        producer.send(make_event())

    assert len(consume(topic, 1)) == 1
    with pytest.raises(ProducerClosedError):
        producer.publish_event(make_event())


def test_the_context_manager_closes_after_an_error_and_lets_it_pass(
    make_producer: Make, topic: str, consume: Consume
) -> None:
    producer = make_producer()

    def work() -> None:
        with producer:
            producer.send(make_event())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()

    assert "closed" in repr(producer)
    assert len(consume(topic, 1)) == 1


USES: dict[str, Callable[[WorkflowEventProducer], object]] = {
    "publish_event": lambda producer: producer.publish_event(make_event()),
    "deliver": lambda producer: producer.deliver(make_event()),
    "publish_events": lambda producer: producer.publish_events([make_event()]),
    "send": lambda producer: producer.send(make_event()),
    "flush": lambda producer: producer.flush(),
    "check_connection": lambda producer: producer.check_connection(1),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_producer_refuses(use: str, producer: WorkflowEventProducer) -> None:
    producer.close()

    with pytest.raises(ProducerClosedError, match="create a new one"):
        USES[use](producer)


# What is refused


@pytest.mark.parametrize("wrong", NOT_EVENTS, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_event_is_refused(wrong: Any, producer: WorkflowEventProducer) -> None:
    for publish in (producer.publish_event, producer.deliver, producer.send):
        with pytest.raises(TypeError, match="expected a WorkflowEvent"):
            publish(wrong)
    with pytest.raises(TypeError, match=r"events\[0\]"):
        producer.publish_events([wrong])


def test_an_oversize_event_is_refused_before_anything_is_sent(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    event = make_event(payload={"data": {"bulk": "x" * 1_000_000}})

    for publish in (producer.publish_event, producer.deliver, producer.send):
        with pytest.raises(EventTooLargeError, match=event.event_id):
            publish(event)

    assert consume(topic, 0) == []


def test_the_size_limit_can_be_lowered(make_producer: Make) -> None:
    with pytest.raises(EventTooLargeError, match="more than the limit of 100"):
        make_producer(max_event_bytes=100).publish_event(make_event())


def test_an_event_changed_into_what_json_cannot_carry_is_refused(producer: WorkflowEventProducer) -> None:
    event = make_event()
    event.payload.data["a"] = {"b": [object()]}

    for publish in (producer.publish_event, producer.deliver, producer.send):
        with pytest.raises(EventSerializationError, match=r"payload\.data\.a\.b\[0\]"):
            publish(event)


@pytest.mark.parametrize("illegal", ILLEGAL_TOPICS)
def test_an_illegal_topic_is_refused_by_every_call(illegal: str, producer: WorkflowEventProducer) -> None:
    for publish in (producer.publish_event, producer.deliver, producer.send):
        with pytest.raises(ConfigurationError, match="not a legal Kafka topic"):
            publish(make_event(), topic=illegal)
    with pytest.raises(ConfigurationError, match="not a legal Kafka topic"):
        producer.publish_events([make_event()], topic=illegal)


# Threads, processes, resources


def test_eight_threads_share_a_producer_and_each_gets_its_own_reports(
    producer: WorkflowEventProducer, topic: str, consume: Consume
) -> None:
    def work(thread: int) -> list[str]:
        events = make_events(40, workflow_id=f"w{thread}")
        assert all(producer.publish_event(event) for event in events[:15])
        futures = [producer.send(event) for event in events[15:25]]
        reports = producer.publish_events(events[25:])
        producer.flush(20)
        assert [future.result(20).event_id for future in futures] == [
            event.event_id for event in events[15:25]
        ]
        assert [report.event_id for report in reports] == [event.event_id for event in events[25:]]
        return [event.event_id for event in events]

    with ThreadPoolExecutor(8) as threads:
        published = [event_id for ids in threads.map(work, range(8)) for event_id in ids]

    read = Counter(event_of(message).event_id for message in consume(topic, 320))
    assert read == Counter(published)


def test_threads_may_close_a_producer_while_others_publish(make_producer: Make) -> None:
    producer = make_producer()
    started = threading.Barrier(5)

    def publish() -> int:
        started.wait(20)
        for count in range(10_000):
            try:
                assert producer.publish_event(make_event(), timeout=20)
            except ProducerClosedError:
                return count
        return -1

    with ThreadPoolExecutor(4) as threads:
        counts = [threads.submit(publish) for _ in range(4)]
        started.wait(20)
        assert producer.close()

        assert all(count.result(30) >= 0 for count in counts)


def test_a_fork_leaves_the_parents_events_to_the_parent_and_gives_the_child_its_own_client(
    broker: Broker, topic: str, consume: Consume
) -> None:
    run("fork_with_pending", broker.bootstrap_servers, topic, 30)

    read = Counter(event_of(message).workflow_id for message in consume(topic, 32))
    assert read == {"parent": 30, "child": 2}


@pytest.mark.parametrize("fate", ["kept", "forgotten"])
def test_a_process_that_ends_right_after_sending_still_delivers(
    fate: str, broker: Broker, topic: str, consume: Consume
) -> None:
    run("exit_after_send", broker.bootstrap_servers, topic, 30, fate)

    assert len(consume(topic, 30)) == 30


def test_a_producer_forgotten_right_after_sending_still_delivers(
    broker: Broker, topic: str, consume: Consume
) -> None:
    producer = WorkflowEventProducer(broker.bootstrap_servers, topic=topic, config={"linger.ms": 200})
    future = producer.send(make_event())

    del producer
    gc.collect()

    assert future.result(20).delivered
    assert len(consume(topic, 1)) == 1


@pytest.mark.skipif(not TASKS.exists(), reason="the system does not list a process's threads under /proc")
def test_producers_that_were_forgotten_without_being_closed_leave_no_threads(
    broker: Broker, topic: str
) -> None:
    def use() -> None:
        producer = WorkflowEventProducer(broker.bootstrap_servers, topic=topic)
        assert producer.publish_event(make_event())
        assert producer.send(make_event()).result(20).delivered

    before = len(list(TASKS.iterdir()))
    for _ in range(5):
        use()

    def threads_left() -> bool:
        gc.collect()
        return len(list(TASKS.iterdir())) <= before

    await_condition(threads_left, timeout_seconds=20, what="the producers' threads to end")


# Construction


def test_constructing_proves_that_a_broker_answers_and_says_so_in_the_log(
    make_producer: Make, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "airflow_workflow_events"):
        make_producer()

    assert f"connected to Kafka at {broker.bootstrap_servers}" in caplog.text


def test_a_producer_shows_where_it_publishes(make_producer: Make, broker: Broker, topic: str) -> None:
    producer = make_producer()

    assert repr(producer) == f"<WorkflowEventProducer {broker.bootstrap_servers} topic={topic} open>"
    assert producer.topic == topic


def test_the_default_topic_is_the_original_systems() -> None:
    with WorkflowEventProducer(connect=False) as producer:
        assert producer.topic == DEFAULT_TOPIC == "workflow-events"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"acks": "2"}, "acks is '2'"),
        ({"acks": "1", "enable_idempotence": True}, "idempotence is not possible with acks=1"),
        ({"topic": "a/b"}, "not a legal Kafka topic"),
        ({"cloudevents": "xml"}, "cloudevents is 'xml': use 'binary', 'structured' or 'off'"),
        ({"max_event_bytes": 0}, "use a whole number of 1 or more"),
        ({"connect_timeout_ms": 0}, "use a whole number of 1 or more"),
        ({"security_protocol": "SASL_SSL"}, "no sasl_mechanism"),
        ({"config": {"no.such.option": 1}}, "librdkafka refuses the configuration: .*no.such.option"),
        ({"config": {"compression.type": "rar"}}, "librdkafka refuses the configuration: .*compression"),
        ({"ssl_ca_location": "/no/such/file", "security_protocol": "SSL"}, "librdkafka refuses"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_reason_before_anything_connects(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        WorkflowEventProducer("127.0.0.1:1", **options)


# Secrets

BY_PARAMETER = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "u",
    "sasl_password": CANARY,
}
BY_CONFIG = {
    "config": {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "u",
        "sasl.password": CANARY,
    }
}
WRONG: dict[str, dict[str, Any]] = {
    "nobody answers": {},
    "an option is unknown": {"config": {"no.such.option": CANARY}},
    "a value is wrong": {"config": {"acks": "1", "enable.idempotence": True}},
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("given", [BY_PARAMETER, BY_CONFIG], ids=["by parameter", "by config"])
def test_a_password_is_in_no_error_no_log_and_no_repr_when(
    wrong: str, given: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    config = {"debug": "conf,security,broker"} | given.get("config", {}) | WRONG[wrong].get("config", {})
    with caplog.at_level(logging.DEBUG), pytest.raises((KafkaError, ConfigurationError)) as caught:
        WorkflowEventProducer("127.0.0.1:1", connect_timeout_ms=300, **(given | {"config": config}))

    assert (
        CANARY
        not in f"{caught.value} {caught.value!r} {caught.value.__cause__} {caplog.text} {capfd.readouterr()}"
    )


def test_a_password_is_not_in_a_producers_repr() -> None:
    with WorkflowEventProducer("127.0.0.1:1", connect=False, **BY_PARAMETER) as producer:  # type: ignore[arg-type]
        assert CANARY not in f"{producer!r} {producer} {producer.__dict__}"


def test_an_unreachable_broker_is_a_connection_error_that_says_what_to_check() -> None:
    with pytest.raises(KafkaConnectionError, match=r"no Kafka broker at 127\.0\.0\.1:1 answered .*check"):
        WorkflowEventProducer("127.0.0.1:1", connect_timeout_ms=500)
