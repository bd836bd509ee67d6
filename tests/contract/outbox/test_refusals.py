"""Only what brokers refuse alone, for what it is, is parked; any other answer keeps events waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError as Code

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.errors import KafkaError, KafkaTimeoutError, WorkflowEventsError
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.halving import deliver_in_halves
from airflow_workflow_events.outbox.outcome import is_about_records
from airflow_workflow_events.outbox.port import Destination
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.brokers.jvm import KafkaCluster
from tests.events import make_event

RELAY_LOG = "airflow_workflow_events.outbox.relay"
TOPIC = "workflow-events"
_EVENTS = 20
_OF_THE_EVENT = [
    Code.MSG_SIZE_TOO_LARGE,
    Code.RECORD_LIST_TOO_LARGE,
    Code.INVALID_RECORD,
    Code.INVALID_TIMESTAMP,
    Code.POLICY_VIOLATION,
    Code.TOPIC_EXCEPTION,
    Code.TOPIC_AUTHORIZATION_FAILED,
]
_OF_THE_CLUSTER = [
    Code.UNKNOWN,
    Code.NETWORK_EXCEPTION,
    Code.INVALID_REQUIRED_ACKS,
    Code.UNSUPPORTED_VERSION,
    Code.INVALID_CONFIG,
    Code.INVALID_REQUEST,
    Code.LOG_DIR_NOT_FOUND,
    Code.FENCED_LEADER_EPOCH,
    Code.UNSUPPORTED_COMPRESSION_TYPE,
    Code.THROTTLING_QUOTA_EXCEEDED,
    Code.PRINCIPAL_DESERIALIZATION_FAILURE,
]


@pytest.fixture
def faulty() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, to be disturbed."""
    with EmbeddedBroker(topics={TOPIC: 1}) as broker:
        yield broker


def opening(servers: str) -> Callable[[str | None], Destination]:
    """Make destinations for one broker, whatever the connection."""
    return lambda _conn_id: ProducerDestination(
        WorkflowEventProducer(servers, topic=TOPIC, connect=False, config=RELAY_OPTIONS)
    )


class Judging:
    """A destination that refuses every batch in which there is an event it does not like."""

    environment = None

    def __init__(self, name: str, bad: str) -> None:
        self._name, self._bad = name, bad

    def deliver(
        self, events: Sequence[WorkflowEvent], _topic: str | None, _timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        refused = any(event.event_id == self._bad for event in events)
        return [KafkaError("refused", name=self._name, retriable=False) if refused else None] * len(events)

    def abandon(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is open."""


def fill(outbox: Outbox, count: int = _EVENTS, route: Route | None = None, size: int = 0) -> None:
    for number in range(count):
        event = make_event(workflow_run_id=f"run{number}", event_id=str(number), data={"x": "y" * size})
        outbox.append(event, route or Route())


@pytest.mark.parametrize("code", _OF_THE_EVENT)
def test_what_a_broker_says_of_an_event_alone_parks_it(
    outbox: Outbox, faulty: EmbeddedBroker, code: int
) -> None:
    fill(outbox, 1)
    faulty.fail_produce_requests([code])
    relay = Relay(outbox, opening(faulty.bootstrap_servers))
    assert relay.drain().parked == 1
    [parked] = outbox.parked()
    assert Code(code).name() in (parked.reason or "")
    relay.close()


@pytest.mark.parametrize("code", _OF_THE_CLUSTER)
def test_any_other_answer_keeps_events_waiting_and_is_a_warning_that_names_it(
    outbox: Outbox, faulty: EmbeddedBroker, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, RELAY_LOG)
    fill(outbox, 1)
    faulty.fail_produce_requests([code])
    relay = Relay(outbox, opening(faulty.bootstrap_servers))
    done = relay.drain()
    assert (done.failed, done.parked) == (1, 0)
    assert relay.holds_back(Route())
    [warning] = [one.getMessage() for one in caplog.records if one.name == RELAY_LOG]
    assert Code(code).name() in warning
    relay.look_again()
    assert relay.drain().delivered == 1
    relay.close()


@pytest.mark.parametrize("code", [Code.MSG_SIZE_TOO_LARGE, Code.INVALID_RECORD, Code.POLICY_VIOLATION])
def test_a_refusal_of_a_batch_parks_none_of_it(outbox: Outbox, faulty: EmbeddedBroker, code: int) -> None:
    fill(outbox)
    faulty.fail_produce_requests([code])
    relay = Relay(outbox, opening(faulty.bootstrap_servers))
    done = relay.drain()
    assert (done.delivered, done.parked, done.failed) == (_EVENTS, 0, 0)
    relay.close()


@pytest.mark.parametrize("bad", ["0", "7", str(_EVENTS - 1)])
def test_of_a_refused_batch_only_the_event_at_fault_is_parked(outbox: Outbox, bad: str) -> None:
    fill(outbox)
    relay = Relay(outbox, lambda _conn_id: Judging("INVALID_RECORD", bad))
    done = relay.drain()
    assert (done.delivered, done.parked) == (_EVENTS - 1, 1)
    assert [parked.event_id for parked in outbox.parked()] == [bad]


def test_an_event_that_gets_an_unknown_answer_each_time_waits_alone_and_is_told_of(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, RELAY_LOG)
    fill(outbox)
    relay = Relay(outbox, lambda _conn_id: Judging("NEW_IN_KAFKA_9", "7"))
    assert relay.drain().failed == _EVENTS, "at first it may be anything"
    relay.look_again()
    relay.drain()
    assert outbox.totals()[:2] == (1, 0)
    assert "and 1 failed" in caplog.records[-1].getMessage()


def test_without_time_for_halves_what_is_left_is_attempted_again() -> None:
    events = [make_event(event_id=str(number)) for number in range(4)]
    refusal = KafkaError("refused", name="INVALID_RECORD", retriable=False)
    errors = deliver_in_halves(events, lambda some: [refusal] * len(some), is_about_records, lambda: True)
    assert [type(error) for error in errors] == [KafkaTimeoutError] * 4


@pytest.mark.real_kafka
@pytest.mark.parametrize("with_large", [False, True])
def test_a_topic_whose_limit_was_lowered_gets_all_that_fits(
    outbox: Outbox, kafka_cluster: KafkaCluster, with_large: bool
) -> None:
    topic = f"small-{uuid4().hex}"
    kafka_cluster.create_topic(topic, config={"max.message.bytes": "20000"})
    route = Route(None, topic)
    fill(outbox, 200, route, size=1_000)
    if with_large:
        outbox.append(make_event(event_id="large", data={"x": "y" * 30_000}), route)
    relay = Relay(outbox, opening(kafka_cluster.bootstrap_servers))
    assert relay.drain().delivered == 200
    relay.close()
    assert [parked.event_id for parked in outbox.parked()] == ["large"] * with_large
    assert outbox.totals().pending == 0
