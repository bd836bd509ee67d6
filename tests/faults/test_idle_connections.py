"""Behind a balancer that forgets idle connections everything goes on at once after a pause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import EmbeddedBroker, WorkflowEventConsumer, WorkflowEventProducer
from airflow_workflow_events.errors import KafkaTimeoutError
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.consumer_config import consumer_config
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.kafka.group_offsets import GroupOffsets
from airflow_workflow_events.kafka.hub import EventHub
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Delivery, Subscription
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.brokers.balancer import ForgetfulBalancer
from tests.events import make_event
from tests.waiting import await_condition

TOPIC = "idle"
#: What the balancer and the client bear in earnest is 240 s and 180 s.
BALANCER_SECONDS = 10.0
CLIENT = {"connections.max.idle.ms": 1_000}
#: Far more than a new connection takes, and less than librdkafka waits for an answer on an old one: a minute.
PATIENCE_SECONDS = 20.0


@pytest.fixture
def balancer() -> Iterator[ForgetfulBalancer]:
    with (
        EmbeddedBroker(topics={TOPIC: 1}) as broker,
        ForgetfulBalancer(broker.bootstrap_servers, BALANCER_SECONDS) as balancer,
    ):
        yield balancer


def pause(balancer: ForgetfulBalancer) -> None:
    """Let every connection be idle until one side has given it up."""
    await_condition(
        lambda: balancer.remembers_none, timeout_seconds=60, what="idle connections to be given up"
    )


def await_count(counted: Callable[[], int], count: int, what: str) -> None:
    await_condition(lambda: counted() >= count, timeout_seconds=60, what=what)


def test_a_producer_publishes_at_once_after_a_pause(balancer: ForgetfulBalancer) -> None:
    with WorkflowEventProducer(balancer.bootstrap_servers, topic=TOPIC, config=CLIENT) as producer:
        assert producer.publish_event(make_event())
        pause(balancer)
        assert producer.publish_event(make_event(), timeout=PATIENCE_SECONDS)
    assert balancer.swallowed_bytes == 0


def test_a_relay_delivers_at_once_after_a_pause(balancer: ForgetfulBalancer, tmp_path: Path) -> None:
    def open_destination(conn_id: str | None) -> ProducerDestination:
        config = {**CLIENT, **RELAY_OPTIONS}
        return ProducerDestination(
            WorkflowEventProducer(balancer.bootstrap_servers, topic=TOPIC, config=config, connect=False)
        )

    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))

    def delivered() -> bool:
        return outbox.totals().pending == 0

    with BackgroundRelay(outbox, Relay(outbox, open_destination)) as relay:
        for _ in range(2):
            relay.accept(make_event())
            await_condition(delivered, timeout_seconds=PATIENCE_SECONDS, what="the event to be delivered")
            pause(balancer)
    assert balancer.swallowed_bytes == 0


def test_the_shared_consumer_reads_on_after_a_pause_of_its_writers(balancer: ForgetfulBalancer) -> None:
    found: list[Delivery] = []

    def open_intake() -> Any:
        return WorkflowEventConsumer(
            balancer.bootstrap_servers, None, topic=TOPIC, start_from="latest", config=CLIENT
        ).intake

    hub = EventHub(open_intake, TOPIC)
    hub.subscribe(Subscription([EventFilter()], StartFrom.EARLIEST, found.extend))
    try:
        with WorkflowEventProducer(balancer.bootstrap_servers, topic=TOPIC, config=CLIENT) as producer:
            for count in (1, 2):
                assert producer.publish_event(make_event(), timeout=PATIENCE_SECONDS)
                await_count(lambda: len(found), count, "events to be handed out")
                # It asks for events all the time; the connections of its start and the producer's are idle.
                await_count(lambda: balancer.given_up, 2 * count, "idle connections to be given up")
    finally:
        hub.close()
    assert balancer.swallowed_bytes == 0


def test_a_consumer_reads_on_after_a_handler_that_kept_its_connections_idle(
    balancer: ForgetfulBalancer,
) -> None:
    events = [make_event(data={"bulk": "x" * 40_000}) for _ in range(100)]
    with WorkflowEventProducer(balancer.bootstrap_servers, topic=TOPIC, config=CLIENT) as producer:
        assert all(report.delivered for report in producer.publish_events(events))
    options: dict[str, Any] = {"start_from": "earliest", "max_buffered_kib": 100, "config": CLIENT}
    with WorkflowEventConsumer(
        balancer.bootstrap_servers,
        None,
        topic=TOPIC,
        consumer_timeout_ms=int(PATIENCE_SECONDS * 1000),
        **options,
    ) as consumer:
        found = []
        for event in consumer:
            found.append(event.event_id)
            if len(found) == 1:
                pause(balancer)  # what is fetched ahead is full, so nothing is asked for
            if len(found) == len(events):
                break
    assert found == [event.event_id for event in events]
    assert balancer.swallowed_bytes == 0


@pytest.mark.parametrize(
    "config_of",
    [
        lambda servers: WorkflowEventProducer(servers, connect=False).client_config,
        lambda servers: consumer_config(
            bootstrap_servers=servers,
            group_id="g",
            max_poll_interval_ms=300_000,
            max_buffered_kib=1_000,
            options={},
            config=None,
        ),
    ],
    ids=["producer", "consumer"],
)
def test_by_default_connections_close_and_metadata_is_renewed_before_a_balancer_forgets_them(
    config_of: Callable[[str], dict[str, Any]],
) -> None:
    config = config_of("127.0.0.1:1")
    assert config["connections.max.idle.ms"] <= 180_000
    assert config["topic.metadata.refresh.interval.ms"] <= 180_000


def test_positions_are_read_and_committed_after_a_pause(balancer: ForgetfulBalancer) -> None:
    offsets = GroupOffsets(lambda: {"bootstrap.servers": balancer.bootstrap_servers, **CLIENT})
    offsets.commit("group", {(TOPIC, 0): 3})
    await_count(lambda: balancer.given_up, 2, "idle connections to be given up")

    def committed() -> bool:
        with suppress(KafkaTimeoutError):
            offsets.commit("group", {(TOPIC, 0): 5})
            return True
        return False

    # A client of a group always wants its coordinator, and a connection that lasts no longer than
    # reconnect.backoff.max.ms is a failed one to librdkafka: the next may have to wait for 10 s.
    await_condition(committed, timeout_seconds=60, what="the second commit")
    assert offsets.committed("group", TOPIC) == {(TOPIC, 0): 5}
    assert balancer.swallowed_bytes == 0
