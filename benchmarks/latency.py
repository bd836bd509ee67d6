"""How long one confirmed publish takes, from the call until the broker's word is back.

As a program, ``python -m benchmarks.latency CONTENDERS SERVERS PUBLISHES``, it gives the seconds of each
publish of one contender or, in turn, of two.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from statistics import quantiles

import confluent_kafka

from airflow_workflow_events import WorkflowEventProducer
from benchmarks import children, events
from benchmarks.events import TOPIC
from benchmarks.producing import settings

Publish = Callable[[int], None]
"""Publishes the event of that number and returns once it is confirmed."""

_WARM_UP_PUBLISHES = 200
EMBEDDED = ("raw,ours",)
REAL = ("raw,ours", "kafka_python")


def raw(servers: str, count: int) -> Publish:
    """``produce`` of finished bytes, then ``poll`` until the callback has come."""
    producer = confluent_kafka.Producer(settings(servers))
    records = events.records(count)

    def publish(number: int) -> None:
        key, value, headers = records[number]
        confirmed: list[bool] = []
        producer.produce(
            TOPIC, value, key, headers=headers, on_delivery=lambda error, _: confirmed.append(error is None)
        )
        while not confirmed:
            producer.poll(0.1)
        if not confirmed[0]:
            raise SystemExit("raw: an event was not delivered")

    return publish


def ours(servers: str, count: int) -> Publish:
    """``publish_event`` of an event that is there, serialised on the way."""
    producer = WorkflowEventProducer(servers, topic=TOPIC)
    made = events.events(count)

    def publish(number: int) -> None:
        if not producer.publish_event(made[number]):
            raise SystemExit("ours: an event was not delivered")

    return publish


def kafka_python(servers: str, count: int) -> Publish:
    """``send(...).get()`` of finished bytes."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    records = events.records(count)

    def publish(number: int) -> None:
        key, value, headers = records[number]
        producer.send(TOPIC, value, key, headers).get(timeout=30)

    return publish


CONTENDERS = {contender.__name__: contender for contender in (raw, ours, kafka_python)}


def measure(
    servers: str, contenders: tuple[str, ...], count: int, rounds: int
) -> Iterator[dict[str, list[float]]]:
    """Give the seconds of each publish, by contender, of one process after the other."""
    for _ in range(rounds):
        for names in contenders:
            yield children.run("-m", "benchmarks.latency", names, servers, str(count))


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    if len(seconds) < 2:
        return dict.fromkeys(("p50", "p95", "p99"), math.nan)
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def main() -> None:
    names, servers, count = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
    publishes = {name: CONTENDERS[name](servers, count + _WARM_UP_PUBLISHES) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(count + _WARM_UP_PUBLISHES):
        # Whoever comes second finds caches and broker warm, so they take turns at that as well.
        for name in names if number % 2 else reversed(names):
            start = time.perf_counter()
            publishes[name](number)
            seconds[name].append(time.perf_counter() - start)
    print(json.dumps({name: taken[_WARM_UP_PUBLISHES:] for name, taken in seconds.items()}))


if __name__ == "__main__":
    main()
