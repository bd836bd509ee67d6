"""CPU time per event: the whole process, with the threads of its client, until every event is confirmed.

As a program, ``python -m benchmarks.producing CONTENDER SERVERS EVENTS``, it is one contender.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka

from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
from benchmarks import children, events
from benchmarks.events import TOPIC

Send = Callable[[], int]
"""Sends what was prepared and returns how many events were confirmed."""

_WARM_UP_EVENTS = 500
_BUILT_AT_ONCE = 500


def settings(servers: str) -> dict[str, Any]:
    """Return the librdkafka configuration our producer makes, for those that use librdkafka directly."""
    with WorkflowEventProducer(servers, connect=False) as producer:
        return producer.client_config


def raw(servers: str) -> Callable[[int], Send]:
    """``produce`` of finished bytes, with a callback that counts."""
    producer = confluent_kafka.Producer(settings(servers))

    def prepare(count: int) -> Send:
        records = events.records(count)

        def send() -> int:
            confirmed = 0

            def delivered(error: Any, _message: Any) -> None:
                nonlocal confirmed
                confirmed += error is None

            for key, value, headers in records:
                producer.produce(TOPIC, value, key, headers=headers, on_delivery=delivered)
            while len(producer):
                producer.poll(0.1)
            producer.flush()
            return confirmed

        return send

    return prepare


def ours(servers: str) -> Callable[[int], Send]:
    """``publish_events`` of events that are there."""
    producer = WorkflowEventProducer(servers, topic=TOPIC)

    def prepare(count: int) -> Send:
        batch = events.events(count)
        return lambda: sum(report.delivered for report in producer.publish_events(batch))

    return prepare


def ours_building(servers: str) -> Callable[[int], Send]:
    """The same, with the events built from an application's values on the way, some hundred at a time."""
    producer = WorkflowEventProducer(servers, topic=TOPIC)

    def prepare(count: int) -> Send:
        given = [events.arguments(number) for number in range(count)]

        def send() -> int:
            confirmed = 0
            for start in range(0, count, _BUILT_AT_ONCE):
                batch = [WorkflowEvent(**values) for values in given[start : start + _BUILT_AT_ONCE]]
                confirmed += sum(report.delivered for report in producer.publish_events(batch))
            return confirmed

        return send

    return prepare


def kafka_python(servers: str) -> Callable[[int], Send]:
    """``send`` of the same JSON and headers without waiting, then ``flush``."""
    from kafka import KafkaProducer

    encode = json.JSONEncoder(separators=(",", ":")).encode
    producer = KafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        max_in_flight_requests_per_connection=1,
    )

    def prepare(count: int) -> Send:
        documents = events.documents(count)

        def send() -> int:
            futures = [
                producer.send(TOPIC, encode(document).encode(), key, headers)
                for key, document, headers in documents
            ]
            producer.flush()
            return sum(future.succeeded() for future in futures)

        return send

    return prepare


def aiokafka(servers: str) -> Callable[[int], Send]:
    """``await send`` of the same JSON and headers, then ``gather`` of the futures."""
    import asyncio

    from aiokafka import AIOKafkaProducer

    encode = json.JSONEncoder(separators=(",", ":")).encode
    loop = asyncio.new_event_loop()

    async def start() -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
        await producer.start()
        return producer

    producer = loop.run_until_complete(start())

    def prepare(count: int) -> Send:
        documents = events.documents(count)

        async def send() -> int:
            futures = [
                await producer.send(TOPIC, encode(document).encode(), key, headers=headers)
                for key, document, headers in documents
            ]
            return len(await asyncio.gather(*futures))

        return lambda: loop.run_until_complete(send())

    return prepare


def openlineage(servers: str, *, flush: bool = False) -> Callable[[int], Send]:
    """OpenLineage's Kafka transport: ``emit``, and one flush at the end."""
    from openlineage.client.transport.kafka import KafkaConfig, KafkaTransport

    transport = KafkaTransport(KafkaConfig(config=settings(servers), topic=TOPIC, flush=flush))
    failures: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = failures.append  # a failed delivery is logged, and known by nothing else
    logging.getLogger("openlineage").addHandler(handler)

    def prepare(count: int) -> Send:
        batch = events.lineage_events(count)

        def send() -> int:
            for event in batch:
                transport.emit(event)
            transport.wait_for_completion()
            return len(batch) - len(failures)

        return send

    return prepare


def openlineage_flush(servers: str) -> Callable[[int], Send]:
    """The same as it is by default: flushed after every event."""
    return openlineage(servers, flush=True)


CONTENDERS = {
    contender.__name__: contender
    for contender in (raw, ours, ours_building, kafka_python, aiokafka, openlineage, openlineage_flush)
}
# kafka-python cannot bootstrap from librdkafka's mock cluster, which the embedded broker is.
EMBEDDED = ("raw", "ours", "ours_building", "openlineage", "openlineage_flush", "aiokafka")
REAL = ("raw", "ours", "ours_building", "openlineage", "kafka_python", "aiokafka")


def measure(
    servers: str, contenders: tuple[str, ...], count: int, rounds: int
) -> Iterator[tuple[str, float]]:
    """Give the CPU seconds per event of one contender after the other, round by round."""
    for number in range(rounds):
        # Turned by one each round, so that nobody always follows the same neighbour.
        start = number % len(contenders)
        for name in (*contenders[start:], *contenders[:start]):
            yield name, children.run("-m", "benchmarks.producing", name, servers, str(count))


def main() -> None:
    name, servers, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    prepare = CONTENDERS[name](servers)
    prepare(_WARM_UP_EVENTS)()
    send = prepare(count)
    gc.collect()
    gc.freeze()  # what was prepared is no garbage, and is not to be searched for any
    before = time.process_time()
    confirmed = send()
    seconds = time.process_time() - before
    if confirmed != count:
        raise SystemExit(f"{name}: {confirmed} of {count} events were confirmed")
    print(json.dumps(seconds / count))


if __name__ == "__main__":
    main()
