"""A topic that is deleted and made again while somebody waits on it: its first events are new, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: TID253
    AdminClient,
    NewTopic,
)

from airflow_workflow_events import WorkflowEventConsumer, WorkflowEventProducer
from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.hub import EventHub
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Delivery, Subscription
from tests.broker import Broker
from tests.contract.consuming import PATIENCE_MS, consumer_of, number_of
from tests.events import make_events
from tests.waiting import await_condition

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(120)]

OLD, NEW = 3, 5


@pytest.fixture
def admin(real_broker: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": real_broker.bootstrap_servers, "log_level": 0})


@pytest.fixture
def small_topic(admin: AdminClient) -> Iterator[str]:
    """A topic of one partition."""
    name = f"small-{uuid4()}"
    admin.create_topics([NewTopic(name, 1)])[name].result()
    yield name
    admin.delete_topics([name])[name].result()


def make_again(admin: AdminClient, topic: str) -> None:
    """Delete a topic, and make it as soon as that is possible."""
    admin.delete_topics([topic])[topic].result()

    def made() -> bool:
        try:
            admin.create_topics([NewTopic(topic, 1)])[topic].result()
        except KafkaException:  # it is not quite gone
            return False
        return True

    await_condition(made, timeout_seconds=30, what="the topic to be made again")


def publish(broker: Broker, topic: str, count: int) -> None:
    with WorkflowEventProducer(broker.bootstrap_servers, topic=topic) as producer:
        assert all(report.delivered for report in producer.publish_events(make_events(count), timeout=30))


def test_the_shared_consumer_hands_out_all_events_of_the_new_topic(
    real_broker: Broker, admin: AdminClient, small_topic: str
) -> None:
    found: list[Delivery] = []

    def open_intake() -> Any:
        servers = real_broker.bootstrap_servers
        return WorkflowEventConsumer(servers, None, topic=small_topic, start_from="latest").intake

    def numbers() -> list[int]:
        return [number_of(one.event) for one in found if isinstance(one, ReceivedEvent)]

    hub = EventHub(open_intake, small_topic)
    hub.subscribe(Subscription([EventFilter()], StartFrom.EARLIEST, found.extend))
    try:
        publish(real_broker, small_topic, OLD)
        await_condition(lambda: len(found) == OLD, timeout_seconds=30, what="the old topic's events")
        found.clear()
        make_again(admin, small_topic)
        publish(real_broker, small_topic, NEW)
        await_condition(
            lambda: set(numbers()) == set(range(NEW)),
            timeout_seconds=30,
            what="all of the new topic's events",
        )
    finally:
        hub.close()


def test_a_consumer_without_a_group_reads_all_events_of_the_new_topic(
    real_broker: Broker, admin: AdminClient, small_topic: str
) -> None:
    publish(real_broker, small_topic, OLD)
    found: list[int] = []
    with consumer_of(real_broker, small_topic, consumer_timeout_ms=3 * PATIENCE_MS) as consumer:

        def read() -> None:
            for event in consumer:
                found.append(number_of(event))  # noqa: PERF401 - the test looks at each as it comes

        reading = threading.Thread(target=read)
        reading.start()
        await_condition(lambda: len(found) == OLD, timeout_seconds=30, what="the old topic's events")
        found.clear()
        make_again(admin, small_topic)
        publish(real_broker, small_topic, NEW)
        await_condition(
            lambda: set(found) == set(range(NEW)), timeout_seconds=30, what="all of the new topic's events"
        )
        consumer.stop()
        reading.join()
