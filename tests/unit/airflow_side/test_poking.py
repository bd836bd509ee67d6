"""A sensor that is not deferrable waits in the task itself, and Kafka may go away meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_workflow_events import (
    EmbeddedBroker,
    WorkflowEvent,
    WorkflowEventConsumer,
    WorkflowEventProducer,
)
from airflow_workflow_events import sensors as sensors_module
from airflow_workflow_events.errors import ConfigurationError, KafkaAuthenticationError
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.kafka.consumer_client import ConsumerClient
from airflow_workflow_events.kafka.intake import Taken
from airflow_workflow_events.sensors import WorkflowEventSensor
from tests.airflow_names import AirflowRescheduleException
from tests.broker import Broker, embedded
from tests.brokers.jvm import SecureListener
from tests.contract.consuming import publish, put
from tests.events import make_event
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import make_dag, make_run
from tests.unit.airflow_side.running import run_task
from tests.waiting import await_condition

_SECONDS = 20
_FAILURE = {"error": {"type": "DiskFull", "message": "no space left"}}


class Opened:
    """The consumers that were opened, and how often there was nothing to read."""

    def __init__(self) -> None:
        self.consumers: list[WorkflowEventConsumer] = []
        self.attempts = 0
        self.empty_handed = 0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    made, get_consumer = Opened(), WorkflowEventHook.get_consumer

    def get_counted(self: WorkflowEventHook, **options: Any) -> WorkflowEventConsumer:
        made.attempts += 1
        consumer = get_consumer(self, **options)
        made.consumers.append(consumer)
        pull = consumer.intake.pull

        def counted(timeout: float | None) -> list[Taken]:
            taken = pull(timeout)
            made.empty_handed += not taken
            return taken

        monkeypatch.setattr(consumer.intake, "pull", counted)
        return consumer

    monkeypatch.setattr(WorkflowEventHook, "get_consumer", get_counted)
    return made


def poke(**options: Any) -> Any:
    """Run the sensor in a run that began a while ago."""
    given: dict[str, Any] = {
        "timeout": _SECONDS,
        "poke_interval": 0.1,
        "deferrable": False,
        "dag": make_dag(),
    }
    sensor = WorkflowEventSensor(task_id="wait", **given | options)
    return run_task(sensor, run=make_run(start_date=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)))


@pytest.fixture
def poking() -> Iterator[Callable[..., Future[Any]]]:
    """``poking(**options)``: what becomes of a sensor that runs in another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda **options: executor.submit(poke, **options)


@contextmanager
def busy(broker: Broker, topic: str) -> Iterator[None]:
    """Others publish to the topic all the time."""
    done = threading.Event()

    def publish_on() -> None:
        with WorkflowEventProducer(broker.bootstrap_servers, topic=topic) as producer:
            while not done.wait(0.02):
                producer.publish_event(make_event(workflow_id="another"))

    thread = threading.Thread(target=publish_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_it_waits_on_one_open_consumer_until_the_event_comes(
    connection: str,
    embedded_broker: Broker,
    event_topic: str,
    opened: Opened,
    poking: Callable[..., Future[Any]],
) -> None:
    result = poking(workflow_id="orders")
    await_condition(lambda: opened.empty_handed > 20, timeout_seconds=_SECONDS, what="it to wait")
    put(embedded_broker, event_topic, None, b"no event")
    [_, event] = [
        *publish(embedded_broker, event_topic, [0]),
        *publish(embedded_broker, event_topic, [1], workflow_id="orders"),
    ]

    assert WorkflowEvent.model_validate(result.result(_SECONDS)) == event
    assert len(opened.consumers) == 1


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_an_event_that_came_first_is_found(
    connection: str, embedded_broker: Broker, event_topic: str, mode: str
) -> None:
    [event] = publish(embedded_broker, event_topic, [0])

    assert poke(mode=mode)["event_id"] == event.event_id


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_an_event_from_before_since_is_not_found(
    connection: str, embedded_broker: Broker, event_topic: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors_module, "_QUIET_SECONDS", 1.5)  # the broker does not say where a moment is
    publish(embedded_broker, event_topic, [0])
    since = dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=1)

    with pytest.raises((AirflowSensorTimeout, AirflowRescheduleException)):
        poke(mode=mode, since=since, timeout=0.3 if mode == "poke" else _SECONDS)


def test_it_reads_the_topic_that_is_named_rather_than_the_connections(
    connection: str, embedded_broker: Broker, event_topic: str
) -> None:
    topic = f"events-{uuid.uuid4()}"
    embedded_broker.create_topic(topic)
    publish(embedded_broker, event_topic, [0])
    [event] = publish(embedded_broker, topic, [1])

    assert poke(topic=topic)["event_id"] == event.event_id


@pytest.mark.parametrize(("soft_fail", "end"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_it_ends_at_its_timeout_also_on_a_busy_topic(
    connection: str, embedded_broker: Broker, event_topic: str, soft_fail: bool, end: type[Exception]
) -> None:
    began = monotonic()
    with busy(embedded_broker, event_topic), pytest.raises(end):
        poke(workflow_id="orders", timeout=1, poke_interval=_SECONDS, soft_fail=soft_fail)

    assert 1 <= monotonic() - began < _SECONDS, "it pokes but once"


def test_it_ends_at_its_timeout_on_a_quiet_topic(connection: str, event_topic: str) -> None:
    with pytest.raises(AirflowSensorTimeout):
        poke(timeout=0.5, poke_interval=_SECONDS)


@pytest.mark.parametrize("is_busy", [False, True])
def test_with_mode_reschedule_it_reads_to_the_end_and_frees_its_slot(
    connection: str, embedded_broker: Broker, event_topic: str, opened: Opened, is_busy: bool
) -> None:
    publish(embedded_broker, event_topic, range(20))
    before = dt.datetime.now(dt.UTC)
    if is_busy:
        with busy(embedded_broker, event_topic), pytest.raises(AirflowRescheduleException) as told:
            poke(workflow_id="orders", mode="reschedule", poke_interval=600)
    else:
        with pytest.raises(AirflowRescheduleException) as told:
            poke(workflow_id="orders", mode="reschedule", poke_interval=600)

    assert told.value.reschedule_date >= before + dt.timedelta(seconds=600)
    [consumer] = opened.consumers
    assert consumer.intake.client.closed


def test_with_mode_reschedule_a_topic_at_whose_end_are_no_events_is_read_to_its_end(
    connection: str, embedded_broker: Broker, event_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time says nothing: a broker may need long for its first answer, and that it is quiet is no end."""
    monkeypatch.setattr(sensors_module, "_QUIET_SECONDS", 1e9)
    publish(embedded_broker, event_topic, range(8))
    put(embedded_broker, event_topic, None, b"no event", b"")

    with pytest.raises(AirflowRescheduleException):
        poke(workflow_id="orders", mode="reschedule")


def test_with_mode_reschedule_an_end_that_no_record_is_at_is_taken_for_reached_after_a_while(
    connection: str, embedded_broker: Broker, event_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets_of = ConsumerClient.offsets_of
    monkeypatch.setattr(
        ConsumerClient,
        "offsets_of",
        lambda self, start: {place: end + 1 for place, end in offsets_of(self, start).items()},
    )
    monkeypatch.setattr(sensors_module, "_QUIET_SECONDS", 0.5)
    publish(embedded_broker, event_topic, range(8))

    with pytest.raises(AirflowRescheduleException):
        poke(workflow_id="orders", mode="reschedule")


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
@pytest.mark.parametrize(("soft_fail", "end"), [(False, AirflowFailException), (True, AirflowSkipException)])
def test_an_event_of_fail_on_ends_it(
    connection: str,
    embedded_broker: Broker,
    event_topic: str,
    mode: str,
    soft_fail: bool,
    end: type[Exception],
) -> None:
    publish(embedded_broker, event_topic, [0], event_type="workflow.failed", payload={"data": _FAILURE})

    with pytest.raises(end) as ended:
        poke(fail_on="workflow.*", event_type="orders.loaded", mode=mode, soft_fail=soft_fail)
    failure = ended.value.__cause__ if soft_fail else ended.value
    assert isinstance(failure, AirflowFailException)
    assert "DiskFull: no space left" in str(ended.value)


def test_an_outage_that_is_there_when_it_begins_is_survived(
    own_broker: EmbeddedBroker, opened: Opened, poking: Callable[..., Future[Any]]
) -> None:
    [event] = publish(embedded(own_broker), "events", [0])
    own_broker.take_down()
    result = poking()
    await_condition(lambda: opened.attempts > 1, timeout_seconds=_SECONDS, what="a poke in vain")
    own_broker.bring_up()

    assert result.result(_SECONDS)["event_id"] == event.event_id


def test_an_outage_while_it_waits_is_survived(
    own_broker: EmbeddedBroker, opened: Opened, poking: Callable[..., Future[Any]]
) -> None:
    result = poking()
    await_condition(lambda: opened.empty_handed > 5, timeout_seconds=_SECONDS, what="it to wait")
    own_broker.take_down()
    before = opened.empty_handed
    await_condition(lambda: opened.empty_handed > before + 5, timeout_seconds=_SECONDS, what="it to wait on")
    own_broker.bring_up()
    [event] = publish(embedded(own_broker), "events", [0])

    assert result.result(_SECONDS)["event_id"] == event.event_id


TIMEOUTS = pytest.mark.parametrize(
    ("soft_fail", "end"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
_SAID_LAST = (
    r"Sensor has timed out.* \(Kafka said last: .*(Connection refused|Connect to|brokers are down).*\)"
)


@TIMEOUTS
def test_an_outage_does_not_extend_the_timeout_and_is_its_reason(
    own_broker: EmbeddedBroker, soft_fail: bool, end: type[Exception]
) -> None:
    own_broker.take_down()

    with pytest.raises(end, match=_SAID_LAST):
        poke(timeout=0.5, soft_fail=soft_fail)


@TIMEOUTS
def test_an_outage_while_it_waits_is_the_reason_of_its_timeout(
    own_broker: EmbeddedBroker,
    opened: Opened,
    poking: Callable[..., Future[Any]],
    soft_fail: bool,
    end: type[Exception],
) -> None:
    result = poking(timeout=4, soft_fail=soft_fail)
    await_condition(lambda: opened.empty_handed > 5, timeout_seconds=_SECONDS, what="it to wait")
    own_broker.take_down()

    with pytest.raises(end, match=_SAID_LAST):
        result.result(_SECONDS)


@TIMEOUTS
def test_a_timeout_for_want_of_an_event_says_nothing_of_kafka(
    connection: str, event_topic: str, soft_fail: bool, end: type[Exception]
) -> None:
    with pytest.raises(end) as ended:
        poke(timeout=0.5, soft_fail=soft_fail)

    assert "Kafka" not in str(ended.value)


def test_with_mode_reschedule_an_outage_is_survived(own_broker: EmbeddedBroker) -> None:
    own_broker.take_down()

    with pytest.raises(AirflowRescheduleException):
        poke(mode="reschedule", poke_interval=600)


def test_a_connection_that_cannot_be_used_is_an_error_at_once(connections: Connections) -> None:
    connections.add("unusable", extra={"bootstrap.servers": "localhost:9", "fetch.min.bytes": "many"})

    with pytest.raises(ConfigurationError, match="connection 'unusable'"):
        poke(workflow_events_conn_id="unusable")


def test_an_unknown_connection_is_an_error_at_once() -> None:
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        poke(workflow_events_conn_id="nowhere")


@pytest.mark.real_kafka
def test_credentials_that_are_refused_are_an_error_at_once(
    secure_listener: SecureListener, connections: Connections
) -> None:
    extra = {
        "bootstrap.servers": secure_listener.bootstrap_servers,
        **secure_listener.client_settings("reader"),
    }
    connections.add(
        extra=json.loads(json.dumps(extra | {"sasl.password": "wrong", "connect.timeout.ms": 20_000}))
    )

    with pytest.raises(KafkaAuthenticationError):
        poke(timeout=600)
