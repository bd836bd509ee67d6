"""A consumer on brokers that die, lack its dead-letter topic, or hold more than it has memory for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.errors import KafkaError
from tests import broker as brokers
from tests.broker import PARTITIONS, Broker
from tests.brokers.jvm import KafkaCluster
from tests.conftest import running_cluster
from tests.contract.consuming import IDLE_MS, committed, consumer_of, new_group, numbers, publish, put, take
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.subprocesses import output_of

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(600)]

#: What a hundred large events take as Python objects is several times this.
_MOST_KIB = 150_000


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A broker of these tests' own, which makes no topics by itself."""
    directory = tmp_path_factory.mktemp("consumed")
    with running_cluster(pytestconfig, directory, auto_create_topics=False) as found:
        yield found


@pytest.fixture
def strict_broker(cluster: KafkaCluster) -> Broker:
    return brokers.real(cluster.bootstrap_servers, "jvm")


def test_without_its_dead_letter_topic_it_stops_before_the_poison_and_goes_on_once_there_is_one(
    strict_broker: Broker, cluster: KafkaCluster
) -> None:
    topic, dead, group = new_group(), f"dead-{uuid4()}", new_group()
    strict_broker.create_topic(topic)
    publish(strict_broker, topic, range(3), workflow_run_id="one")
    with consumer_of(strict_broker, topic, group, dead_letter_topic=dead) as consumer:
        take(consumer, 3)
        consumer.commit()
        put(strict_broker, topic, *[b"{"] * 3)
        with pytest.raises(KafkaError, match=rf"dead-letter topic {dead} did not take .*create the topic"):
            take(consumer, 1)
    assert committed(strict_broker, topic, group) == 3

    cluster.create_topic(dead, PARTITIONS)
    publish(strict_broker, topic, [3])
    with consumer_of(
        strict_broker, topic, group, dead_letter_topic=dead, consumer_timeout_ms=IDLE_MS
    ) as consumer:
        assert numbers(consumer) == [3]
    assert len(strict_broker.messages(dead, 3)) == 3


def test_a_broker_that_dies_and_comes_back_is_read_on(
    strict_broker: Broker, cluster: KafkaCluster, scale: Scale, note_fault: NoteFault
) -> None:
    topic, count, kills = new_group(), 3_000, scale.of(20, 1)
    (broker_id,) = cluster.broker_ids
    strict_broker.create_topic(topic)
    publish(strict_broker, topic, range(count))
    for kill in range(kills):
        found: set[int] = set()
        with consumer_of(
            strict_broker,
            topic,
            new_group() if kill % 2 == 0 else None,
            consumer_timeout_ms=120_000,
            max_buffered_kib=1,
        ) as consumer:
            found.update(numbers(take(consumer, 100)))
            cluster.kill(broker_id)
            back = threading.Timer(1, cluster.start_broker, (broker_id,))
            back.start()
            for event in consumer:
                found.add(event.payload.data["number"])
                if len(found) == count:
                    break
            back.join()
            consumer.commit()
        assert found == set(range(count))

    note_fault("kill -9 of the broker that a consumer reads from", kills, remark="everything was read")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_large_backlog_and_a_slow_handler_take_bounded_memory(
    strict_broker: Broker, scale: Scale, note_fault: NoteFault, tmp_path: Path
) -> None:
    topic, count = new_group(), scale.of(2_000, 100)
    strict_broker.create_topic(topic)
    with WorkflowEventProducer(strict_broker.bootstrap_servers, topic=topic) as producer:
        for number in range(0, count, 50):
            events = [
                make_event(
                    workflow_run_id=f"run_{number + at}",
                    payload={"data": {"rows": [at * 1_000 + row for row in range(60_000)]}},
                )
                for at in range(50)
            ]
            assert all(report.delivered for report in producer.publish_events(events))

    printed = output_of(
        *(sys.executable, "-m", "tests.faults.processes.hoarding"),
        *(strict_broker.bootstrap_servers, topic, str(count)),
        timeout_seconds=300,
    )
    read, grown_kib = map(int, printed.split())

    note_fault("a backlog of large events", count, remark=f"memory grew by {grown_kib // 1024} MiB")
    assert read == count
    assert grown_kib < _MOST_KIB
