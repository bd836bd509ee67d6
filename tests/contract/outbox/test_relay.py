"""The relay delivers what the outbox accepted: at least once, in the order of each run, whatever breaks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from confluent_kafka import KafkaError as Code
from confluent_kafka import Message

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import ConfigurationError, KafkaAuthenticationError, WorkflowEventsError
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE, Route
from airflow_workflow_events.outbox.port import Destination
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests import broker as brokers
from tests.broker import Broker, event_of
from tests.contract.outbox.conftest import MakeOutbox
from tests.counting import Counting
from tests.events import make_event
from tests.forking import ends_in_child
from tests.waiting import await_condition

TOPIC = "workflow-events"
EAGER = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100}


@pytest.fixture
def faulty() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, to be disturbed."""
    with EmbeddedBroker(topics={TOPIC: 4}) as broker:
        yield broker


def opening(
    servers: str, topic: str = TOPIC, environment: str | None = None
) -> Callable[[str | None], Destination]:
    """Make destinations for one broker, whatever the connection."""

    def open_destination(_conn_id: str | None) -> Destination:
        producer = WorkflowEventProducer(
            servers, topic=topic, connect=False, config={**RELAY_OPTIONS, **EAGER}
        )
        return ProducerDestination(producer, environment)

    return open_destination


def fill(outbox: Outbox, runs: int, of_each: int) -> list[str]:
    """Append events of some runs in turn; return their ids."""
    found = []
    for number in range(of_each):
        for run in range(runs):
            event = make_event(workflow_run_id=f"run{run}", event_id=f"{run}-{number:05}")
            outbox.append(event)
            found.append(event.event_id)
    return found


def first_arrivals(messages: Sequence[Message]) -> dict[str, list[str]]:
    """The ids of each run in the order in which they came first."""
    arrived: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        event = event_of(message)
        if event.event_id not in arrived[event.workflow_run_id]:
            arrived[event.workflow_run_id].append(event.event_id)
    return arrived


def assert_all_in_order(messages: Sequence[Message], ids: Sequence[str]) -> None:
    arrived = first_arrivals(messages)
    assert sorted(event_id for of_run in arrived.values() for event_id in of_run) == sorted(ids)
    assert all(of_run == sorted(of_run) for of_run in arrived.values()), "out of order"


def test_everything_is_delivered_once_and_in_order(outbox: Outbox, broker: Broker, topic: str) -> None:
    ids = fill(outbox, 7, 100)
    relay = Relay(outbox, opening(broker.bootstrap_servers, topic), batch=50)
    assert relay.drain().delivered == 700
    relay.close()
    messages = broker.messages(topic, 700)
    assert len(messages) == 700
    assert_all_in_order(messages, ids)
    assert outbox.totals().pending == 0


def test_a_connections_environment_and_an_events_topic_are_filled_in(
    outbox: Outbox, embedded_broker: Broker
) -> None:
    topic = "routed"
    outbox.append(make_event(event_id="default"), Route("kafka", topic), environment_is_default=True)
    outbox.append(make_event(event_id="own"), Route("kafka", topic))
    relay = Relay(outbox, opening(embedded_broker.bootstrap_servers, environment="prod"))
    assert relay.drain().delivered == 2
    relay.close()
    found = {event_of(one).event_id: event_of(one) for one in embedded_broker.messages(topic, 2)}
    assert found["default"].metadata.environment == "prod"
    assert found["own"].metadata.environment == "test"


def test_an_outage_delays_and_loses_nothing(outbox: Outbox, faulty: EmbeddedBroker) -> None:
    faulty.take_down()
    ids = fill(outbox, 5, 20)
    metrics = Counting()
    relay = Relay(outbox, opening(faulty.bootstrap_servers), metrics=metrics, delivery_seconds=0.5)
    assert relay.drain().failed == 100
    assert outbox.totals().pending == 100
    faulty.bring_up()
    await_condition(lambda: relay.drain().delivered, timeout_seconds=30, what="the relay to try again")
    await_condition(
        lambda: relay.drain() is not None and outbox.totals().pending == 0,
        timeout_seconds=30,
        what="the outbox to be empty",
    )
    relay.close()
    assert metrics.counts == {names.PUBLISHED: 100}
    assert_all_in_order(brokers.embedded(faulty).messages(TOPIC, 100), ids)


def test_what_the_broker_refuses_for_ever_is_parked_with_its_reason(
    outbox: Outbox, faulty: EmbeddedBroker
) -> None:
    fill(outbox, 1, 1)
    faulty.fail_produce_requests([Code.TOPIC_AUTHORIZATION_FAILED])
    metrics = Counting()
    relay = Relay(outbox, opening(faulty.bootstrap_servers), metrics=metrics)
    assert relay.drain().parked == 1
    [parked] = outbox.parked()
    assert "TOPIC_AUTHORIZATION_FAILED" in (parked.reason or "")
    assert metrics.counts == {names.PARKED: 1}
    assert outbox.retry_parked() == 1
    assert relay.drain().delivered == 1
    relay.close()


def test_a_row_that_is_no_event_is_parked_and_not_in_the_way(outbox: Outbox, faulty: EmbeddedBroker) -> None:
    ids = fill(outbox, 1, 2)
    with outbox.database.connect() as connection:
        connection.execute(sa.text("UPDATE workflow_events_outbox SET payload = '{}' WHERE id = '0-00000'"))
    relay = Relay(outbox, opening(faulty.bootstrap_servers))
    assert relay.drain().delivered == 1
    relay.close()
    [parked] = outbox.parked()
    assert (parked.event_id, parked.reason) == (
        ids[0],
        "event_id is missing: without it the event cannot be told from another",
    )


def test_a_connection_that_cannot_be_used_holds_up_no_other(outbox: Outbox, faulty: EmbeddedBroker) -> None:
    outbox.append(make_event(event_id="stuck"), Route("broken", None))
    outbox.append(make_event(event_id="fine"), Route("works", None))

    def open_destination(conn_id: str | None) -> Destination:
        if conn_id == "broken":
            raise ConfigurationError("connection 'broken' names no broker")
        return opening(faulty.bootstrap_servers)(conn_id)

    relay = Relay(outbox, open_destination)
    assert relay.drain().delivered == 1
    relay.close()
    [entry] = outbox.claim(Route("broken", None), "another", lease_seconds=60, count=10)
    assert (entry.event_id, entry.attempts) == ("stuck", 0), "what cannot be sent from here was not claimed"


class Refusing:
    """A destination whose login is refused, which a broker without a login cannot show."""

    environment = None
    closed = 0

    def deliver(
        self, events: Sequence[WorkflowEvent], _topic: str | None, _timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        return [KafkaAuthenticationError("the broker refused the login")] * len(events)

    def abandon(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        self.closed += 1


def test_a_refused_login_parks_nothing_and_has_the_connection_looked_up_again(outbox: Outbox) -> None:
    fill(outbox, 1, 3)
    refusing = Refusing()
    relay = Relay(outbox, lambda _conn_id: refusing)
    assert relay.drain().failed == 3
    assert refusing.closed == 1
    assert outbox.totals()[:2] == (3, 0)


def test_two_relays_share_the_work_and_keep_the_order(
    make_outbox: MakeOutbox, embedded_broker: Broker
) -> None:
    topic = f"shared-{id(make_outbox)}"
    embedded_broker.create_topic(topic)
    ids = fill(make_outbox(), 10, 60)
    relays = [
        Relay(make_outbox(), opening(embedded_broker.bootstrap_servers, topic), batch=20) for _ in range(2)
    ]
    outbox = make_outbox()

    def work(relay: Relay) -> None:
        await_condition(
            lambda: relay.drain() is not None and outbox.totals().pending == 0,
            timeout_seconds=60,
            what="the outbox to be empty",
        )
        relay.close()

    threads = [threading.Thread(target=work, args=(relay,)) for relay in relays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = embedded_broker.messages(topic, len(ids))
    assert len(messages) == len(ids)
    assert_all_in_order(messages, ids)


@pytest.mark.parametrize("step", ["claimed", "produced", "reported", "settled"])
def test_a_relay_killed_at_any_step_loses_nothing(
    step: str, url: str, outbox: Outbox, embedded_broker: Broker
) -> None:
    topic = f"killed-{step}-{id(outbox)}"
    embedded_broker.create_topic(topic)
    ids = fill(outbox, 4, 25)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.contract.processes.killed_relay",
            url,
            embedded_broker.bootstrap_servers,
            topic,
            step,
        ],
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    relay = Relay(outbox, opening(embedded_broker.bootstrap_servers, topic))
    await_condition(
        lambda: relay.drain() is not None and outbox.totals().pending == 0,
        timeout_seconds=60,
        what="the dead relay's lease to run out",
    )
    relay.close()
    assert_all_in_order(embedded_broker.messages(topic, len(ids)), ids)


def test_a_background_relay_delivers_what_it_is_given_and_says_that_it_lives(
    make_outbox: MakeOutbox, faulty: EmbeddedBroker
) -> None:
    outbox, metrics = make_outbox(), Counting()
    background = BackgroundRelay(
        outbox, Relay(outbox, opening(faulty.bootstrap_servers), metrics=metrics), metrics=metrics
    )
    background.start()
    assert background.running
    assert background.accept(make_event(event_id="e1"), DEFAULT_ROUTE, environment_is_default=False)
    [message] = brokers.embedded(faulty).messages(TOPIC, 1)
    assert event_of(message).event_id == "e1"
    await_condition(lambda: outbox.relays(60), timeout_seconds=20, what="a sign of life")
    assert background.stop(20)
    assert outbox.relays(60) == []
    assert metrics.counts == {names.ACCEPTED: 1, names.PUBLISHED: 1}
    assert metrics.gauges[names.OUTBOX_DEPTH] == 0


def test_an_event_that_was_changed_into_no_json_is_refused_and_counted(
    make_outbox: MakeOutbox, faulty: EmbeddedBroker
) -> None:
    outbox, metrics = make_outbox(), Counting()
    event = make_event()
    event.payload.data["broken"] = object()
    with BackgroundRelay(
        outbox, Relay(outbox, opening(faulty.bootstrap_servers)), metrics=metrics
    ) as background:
        assert background.accept(event) is False
        assert background.accept(make_event()) is True
    assert metrics.counts[names.FAILED] == 1


def test_an_event_that_became_no_json_while_it_waited_does_not_hold_up_the_others(
    tmp_path: Path, faulty: EmbeddedBroker
) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database at all, but a file of some length" * 100)
    outbox, metrics = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db")), Counting()
    background = BackgroundRelay(
        outbox, Relay(outbox, opening(faulty.bootstrap_servers), metrics=metrics), metrics=metrics
    )
    event = make_event()
    assert not background.accept(event)
    assert not background.accept(make_event(event_id="behind it"))
    event.payload.data["broken"] = object()
    (tmp_path / "outbox.db").unlink()
    with background:
        [message] = brokers.embedded(faulty).messages(TOPIC, 1)
    assert event_of(message).event_id == "behind it"
    assert metrics.counts[names.FAILED] == 1


def test_a_child_of_a_fork_has_its_events_accepted_though_it_has_no_relay(
    make_outbox: MakeOutbox, faulty: EmbeddedBroker
) -> None:
    outbox = make_outbox()
    with BackgroundRelay(outbox, Relay(outbox, opening(faulty.bootstrap_servers))) as background:
        assert ends_in_child(lambda: background.accept(make_event(event_id="of the child")) or sys.exit(1))
        [message] = brokers.embedded(faulty).messages(TOPIC, 1)
    assert event_of(message).event_id == "of the child"


def test_what_another_process_appends_is_delivered_too(
    make_outbox: MakeOutbox, faulty: EmbeddedBroker
) -> None:
    outbox = make_outbox()
    background = BackgroundRelay(outbox, Relay(outbox, opening(faulty.bootstrap_servers)), poll_seconds=0.05)
    background.start()
    make_outbox().append(make_event())
    assert len(brokers.embedded(faulty).messages(TOPIC, 1)) == 1
    assert background.stop(20)


def test_without_an_outbox_events_are_attempted_directly_and_the_trouble_is_counted(
    tmp_path: Path, faulty: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database at all, but a file of some length" * 100)
    outbox, metrics = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db")), Counting()
    background = BackgroundRelay(
        outbox, Relay(outbox, opening(faulty.bootstrap_servers), metrics=metrics), metrics=metrics
    )
    background.start()
    for number in range(3):
        event = make_event(event_id=str(number))
        assert not background.accept(event, DEFAULT_ROUTE, environment_is_default=False)
    messages = brokers.embedded(faulty).messages(TOPIC, 3)
    assert [event_of(message).event_id for message in messages] == ["0", "1", "2"]
    await_condition(lambda: metrics.counts[names.PUBLISHED] == 3, timeout_seconds=20, what="the counts")
    assert metrics.counts[names.OUTBOX_ERRORS] >= 1
    background.stop(20)
    complaints = [record for record in caplog.records if "events are attempted directly" in record.message]
    assert len(complaints) == 1, "the same trouble is logged once"


def test_a_relay_that_is_stopped_gives_back_what_it_had_claimed(
    outbox: Outbox, faulty: EmbeddedBroker
) -> None:
    background = BackgroundRelay(outbox, Relay(outbox, opening(faulty.bootstrap_servers)))
    assert background.accept(make_event(event_id="warm"), DEFAULT_ROUTE, environment_is_default=False)
    background.start()
    brokers.embedded(faulty).messages(TOPIC, 1)
    await_condition(
        lambda: outbox.totals().pending == 0, timeout_seconds=20, what="the first event to be settled"
    )
    faulty.set_round_trip_ms(60_000)
    background.accept(make_event(event_id="slow"), DEFAULT_ROUTE, environment_is_default=False)

    def is_claimed() -> bool:
        with outbox.database.connect() as connection:
            found = connection.execute(sa.text("SELECT lease FROM workflow_events_outbox")).scalar()
        return found is not None

    await_condition(is_claimed, timeout_seconds=20, what="the relay to claim the event")
    assert background.stop(5)
    assert not is_claimed()
    assert outbox.totals().pending == 1


def test_a_connection_that_cannot_be_looked_up_is_not_asked_for_all_the_time(outbox: Outbox) -> None:
    asked = []

    def open_destination(conn_id: str | None) -> Destination:
        asked.append(conn_id)
        raise ConfigurationError("the connection isn't defined")

    relay = Relay(outbox, open_destination)
    assert not relay.prepare()
    assert not relay.prepare()
    assert relay.drain().failed == 0
    assert asked == [None]
