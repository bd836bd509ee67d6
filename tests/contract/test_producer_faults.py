"""What the producer does when Kafka says no, says nothing, or is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import confluent_kafka
import pytest

from airflow_workflow_events import EmbeddedBroker, KafkaTimeoutError, WorkflowEventProducer
from airflow_workflow_events.errors import (
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaQueueFullError,
)
from tests.broker import embedded, event_of
from tests.events import make_event, make_events
from tests.waiting import await_condition

Code = confluent_kafka.KafkaError
TOPIC = "faults"
#: An answer that comes later than any timeout of a test, and earlier than its patience.
SLOW_MS = 1_500
#: A client that tries again soon after a broker came back.
EAGER = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100}

Make = Callable[..., WorkflowEventProducer]


@pytest.fixture
def faulty() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, to be disturbed."""
    with EmbeddedBroker(topics={TOPIC: 4}) as broker:
        yield broker


@pytest.fixture
def make_producer(faulty: EmbeddedBroker) -> Iterator[Make]:
    """Makes producers for the broker, and gives up what they could not deliver."""
    made: list[WorkflowEventProducer] = []

    def make(**options: Any) -> WorkflowEventProducer:
        config = EAGER | options.pop("config", {})
        producer = WorkflowEventProducer(faulty.bootstrap_servers, topic=TOPIC, config=config, **options)
        made.append(producer)
        return producer

    yield make
    for producer in made:
        producer.close(timeout=0)


@pytest.fixture
def producer(make_producer: Make) -> WorkflowEventProducer:
    return make_producer()


def numbers_on_topic(broker: EmbeddedBroker, count: int) -> list[int]:
    return [event_of(message).payload.data["number"] for message in embedded(broker).messages(TOPIC, count)]


# Kafka says no


def test_a_failed_delivery_is_false_and_logged_with_the_events_id_and_the_reason(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.fail_produce_requests([Code.TOPIC_AUTHORIZATION_FAILED])
    event = make_event()

    assert producer.publish_event(event) is False

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    message = record.getMessage()
    assert message.startswith(
        f"event {event.event_id} was not delivered to {TOPIC}: TOPIC_AUTHORIZATION_FAILED"
    )
    assert "grant the principal Write" in message


def test_the_report_of_a_failed_delivery_has_the_error_and_no_place(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    faulty.fail_produce_requests([Code.TOPIC_AUTHORIZATION_FAILED])

    report = producer.deliver(make_event())

    assert not report.delivered
    assert isinstance(report.error, KafkaAuthorizationError)
    assert (report.partition, report.offset) == (None, None)


def test_a_sent_event_that_fails_resolves_its_future_with_the_error(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    faulty.fail_produce_requests([Code.MSG_SIZE_TOO_LARGE])

    report = producer.send(make_event()).result(20)

    assert isinstance(report.error, KafkaError)
    assert report.error.name == "MSG_SIZE_TOO_LARGE"


def test_each_event_of_many_has_its_own_fate(faulty: EmbeddedBroker, make_producer: Make) -> None:
    producer = make_producer(config={"batch.num.messages": 1}, enable_idempotence=False)
    faulty.fail_produce_requests([Code.INVALID_RECORD])

    reports = producer.publish_events(make_events(5))

    assert sorted(report.delivered for report in reports) == [False, True, True, True, True]


@pytest.mark.parametrize(
    "code", [Code.NOT_ENOUGH_REPLICAS, Code.NOT_LEADER_FOR_PARTITION, Code.REQUEST_TIMED_OUT]
)
def test_a_retriable_error_is_retried(
    code: int, faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    faulty.fail_produce_requests([code])

    assert producer.publish_event(make_event(payload={"data": {"number": 0}}))
    assert numbers_on_topic(faulty, 1) == [0]


def test_without_retries_a_retriable_error_fails_and_says_that_trying_again_may_help(
    faulty: EmbeddedBroker, make_producer: Make
) -> None:
    producer = make_producer(retries=0)
    faulty.fail_produce_requests([Code.NOT_ENOUGH_REPLICAS])

    report = producer.deliver(make_event())

    assert report.error is not None
    assert report.error.retriable


def test_the_producer_works_on_after_a_failure(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    faulty.fail_produce_requests([Code.MSG_SIZE_TOO_LARGE])

    assert [producer.publish_event(event) for event in make_events(3)] == [False, True, True]


#: After this the client is beyond repair: it and the broker disagree about what was written.
FATAL = Code.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_after_a_fatal_error_the_event_is_reported_as_failed_and_the_next_one_is_published(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.publish_event(make_event(payload={"data": {"number": 0}}))
    faulty.fail_produce_requests([FATAL])

    report = producer.deliver(make_event(payload={"data": {"number": 1}}))

    assert report.error is not None
    assert report.error.retriable
    assert producer.publish_event(make_event(payload={"data": {"number": 2}}))
    assert numbers_on_topic(faulty, 2) == [0, 2]
    assert "the Kafka client failed and is replaced" in caplog.text


def test_after_a_fatal_error_every_sent_event_has_its_report_and_the_producer_goes_on(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    producer.publish_event(make_event())
    faulty.fail_produce_requests([FATAL])
    faulty.set_round_trip_ms(50)

    reports = [future.result(20) for future in [producer.send(event) for event in make_events(20)]]

    for report in reports:
        if not report.delivered:
            assert isinstance(report.error, KafkaError)
            assert report.error.name == "OUT_OF_ORDER_SEQUENCE_NUMBER"
    assert not reports[0].delivered
    assert producer.send(make_event()).result(20).delivered
    producer.flush(20)
    assert producer.close(20)


# Kafka says nothing


def test_true_is_not_returned_before_the_brokers_answer(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    producer.publish_event(make_event())
    faulty.set_round_trip_ms(400)
    started = monotonic()

    assert producer.publish_event(make_event())

    assert monotonic() - started > 0.3


def test_a_timeout_is_an_error_and_the_late_delivery_is_logged(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.publish_event(make_event(payload={"data": {"number": 0}}))
    faulty.set_round_trip_ms(SLOW_MS)
    event = make_event(payload={"data": {"number": 1}})
    started = monotonic()

    with pytest.raises(KafkaTimeoutError, match=rf"event {event.event_id} .*publishing it again is safe"):
        producer.publish_event(event, timeout=0.1)

    assert monotonic() - started < SLOW_MS / 1000
    late = f"event {event.event_id} was delivered after its caller's timeout"
    await_condition(lambda: late in caplog.text, timeout_seconds=20, what="the late delivery's log line")
    faulty.set_round_trip_ms(0)
    assert sorted(numbers_on_topic(faulty, 2)) == [0, 1]


def test_a_timeout_of_zero_sends_the_event_and_does_not_wait(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    # Without it, the answer of a broker next door may be here before its caller looks.
    faulty.set_round_trip_ms(SLOW_MS)

    with pytest.raises(KafkaTimeoutError):
        producer.publish_event(make_event(payload={"data": {"number": 0}}), timeout=0)

    faulty.set_round_trip_ms(0)
    assert numbers_on_topic(faulty, 1) == [0]


def test_many_events_that_run_out_of_time_are_reported_as_unknown_in_their_order(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    producer.publish_event(make_event())
    faulty.set_round_trip_ms(SLOW_MS)
    events = make_events(3)

    reports = producer.publish_events(events, timeout=0.1)

    assert [report.event_id for report in reports] == [event.event_id for event in events]
    assert all(isinstance(report.error, KafkaTimeoutError) for report in reports)
    assert all(str(report.event_id) in str(report.error) for report in reports)


def test_send_returns_at_once_from_a_slow_broker(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    producer.publish_event(make_event())
    faulty.set_round_trip_ms(SLOW_MS)
    started = monotonic()

    futures = [producer.send(event) for event in make_events(100)]

    assert monotonic() - started < SLOW_MS / 1000
    assert not any(future.done() for future in futures)


def test_a_flush_that_runs_out_of_time_says_how_many_are_left_and_gives_none_up(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    producer.publish_event(make_event())
    faulty.set_round_trip_ms(SLOW_MS)
    futures = [producer.send(event) for event in make_events(3)]

    with pytest.raises(KafkaTimeoutError, match=r"3 event\(s\) still had no delivery report after 0\.1 s"):
        producer.flush(timeout=0.1)

    faulty.set_round_trip_ms(0)
    assert all(future.result(20).delivered for future in futures)


def test_two_threads_flushing_and_publishing_do_not_hold_each_other_up(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    faulty.set_round_trip_ms(100)
    with ThreadPoolExecutor(2) as threads:
        flushed = threads.submit(producer.flush, 20)
        published = threads.submit(producer.publish_event, make_event(), None, 20)

        flushed.result(30)
        assert published.result(30)


# Kafka is gone


def test_a_broker_that_is_gone_and_comes_back_gets_every_event_once(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    assert producer.publish_event(make_event(payload={"data": {"number": 100}}))
    faulty.take_down()
    futures = [producer.send(event) for event in make_events(20)]
    with pytest.raises(KafkaTimeoutError):
        producer.publish_event(make_event(payload={"data": {"number": 20}}), timeout=0.3)

    faulty.bring_up()

    assert all(future.result(30).delivered for future in futures)
    assert producer.publish_event(make_event(payload={"data": {"number": 21}}), timeout=30)
    assert numbers_on_topic(faulty, 23) == [100, *range(22)]


def test_an_event_no_broker_takes_fails_when_its_delivery_time_is_over(
    faulty: EmbeddedBroker, make_producer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make_producer(delivery_timeout_ms=400)
    producer.publish_event(make_event())
    faulty.take_down()
    event = make_event()

    report = producer.deliver(event, timeout=30)

    assert report.error is not None
    assert isinstance(report.error, KafkaError)
    assert report.error.name == "_MSG_TIMED_OUT"
    assert report.error.retriable
    assert f"event {event.event_id} was not delivered" in caplog.text


def test_closing_gives_up_what_nobody_takes_and_logs_each_event(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.take_down()
    futures = [producer.send(event) for event in make_events(3)]
    started = monotonic()

    assert producer.close(timeout=0.2) is False

    assert monotonic() - started < 15
    assert "closing with 3 event(s) undelivered" in caplog.text
    for future in futures:
        report = future.result(0)
        assert not report.delivered
        assert f"event {report.event_id} was not delivered" in caplog.text


def test_closing_while_a_caller_waits_ends_its_wait(
    faulty: EmbeddedBroker, producer: WorkflowEventProducer
) -> None:
    faulty.take_down()
    with ThreadPoolExecutor(1) as threads:
        published = threads.submit(producer.publish_event, make_event())
        await_condition(lambda: len(producer._client._producer), timeout_seconds=10, what="the event's start")

        assert producer.close(timeout=0.2) is False
        assert published.result(20) is False


def test_an_unreachable_broker_is_noticed_at_construction_within_the_bound(faulty: EmbeddedBroker) -> None:
    faulty.take_down()
    started = monotonic()

    with pytest.raises(KafkaConnectionError, match=r"answered within 0\.5 s") as caught:
        WorkflowEventProducer(faulty.bootstrap_servers, connect_timeout_ms=500)

    assert monotonic() - started < 10
    assert caught.value.retriable
    assert isinstance(caught.value, ConnectionError)


def test_a_host_that_does_not_exist_is_a_kafka_error() -> None:
    with pytest.raises(KafkaError, match=r"no-such-host\.invalid:9092"):
        WorkflowEventProducer("no-such-host.invalid:9092", connect_timeout_ms=500)


def test_connect_false_puts_the_proof_off_until_it_is_asked_for(
    faulty: EmbeddedBroker, make_producer: Make
) -> None:
    faulty.take_down()
    producer = make_producer(connect=False)
    with pytest.raises(KafkaConnectionError):
        producer.check_connection(0.3)

    faulty.bring_up()

    producer.check_connection(20)
    assert producer.publish_event(make_event(), timeout=20)


# The client's own queue


@pytest.fixture
def narrow(faulty: EmbeddedBroker, make_producer: Make) -> WorkflowEventProducer:
    """A producer with room for three events, and a broker that is gone."""
    producer = make_producer(config={"queue.buffering.max.messages": 3})
    faulty.take_down()
    for event in make_events(3):
        producer.send(event)
    return producer


def test_a_full_queue_is_waited_for_and_then_a_timeout_that_says_the_event_was_not_sent(
    faulty: EmbeddedBroker, narrow: WorkflowEventProducer
) -> None:
    event = make_event(payload={"data": {"number": 99}})
    started = monotonic()

    with pytest.raises(KafkaTimeoutError, match=f"event {event.event_id} was not sent.*queue") as caught:
        narrow.publish_event(event, timeout=0.3)

    assert monotonic() - started >= 0.25
    assert caught.value.name == "_QUEUE_FULL"
    faulty.bring_up()
    narrow.flush(30)
    assert numbers_on_topic(faulty, 3) == [0, 1, 2]


def test_an_event_gets_into_the_queue_as_soon_as_there_is_room(
    faulty: EmbeddedBroker, narrow: WorkflowEventProducer
) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(narrow.publish_event, make_event(payload={"data": {"number": 3}}), None, 30)
        faulty.bring_up()

        assert waiting.result(30)
    assert numbers_on_topic(faulty, 4) == [0, 1, 2, 3]


def test_more_events_than_the_queue_holds_are_all_published(
    faulty: EmbeddedBroker, make_producer: Make
) -> None:
    producer = make_producer(config={"queue.buffering.max.messages": 3})

    assert all(report.delivered for report in producer.publish_events(make_events(100)))
    assert numbers_on_topic(faulty, 100) == list(range(100))


def test_send_does_not_wait_for_room_and_says_so_in_the_report(
    narrow: WorkflowEventProducer, caplog: pytest.LogCaptureFixture
) -> None:
    event = make_event()

    report = narrow.send(event).result(0)

    assert isinstance(report.error, KafkaQueueFullError)
    assert report.error.retriable
    assert f"event {event.event_id} was not delivered" in caplog.text


def test_many_events_without_room_are_reported_as_not_sent(narrow: WorkflowEventProducer) -> None:
    reports = narrow.publish_events(make_events(2), timeout=0.2)

    assert all(isinstance(report.error, KafkaTimeoutError) for report in reports)
    assert all("was not sent" in str(report.error) for report in reports)
