"""How long a listener keeps the scheduler's thread for one event, and what becomes of the event meanwhile.

As a program, ``python -m benchmarks.listening CONTENDER SERVERS EVENTS``, it is a scheduler's thread that
calls one contender's hook: in bursts of twenty, as a scheduler looks after runs, and 200 times a second.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import children

Hook = Callable[[Any, str], None]
"""A listener's ``on_dag_run_success``."""

CONTENDERS = ("ours", "official")
#: What Kafka is like: it answers, takes five seconds to, does not listen, listens and says nothing.
CONDITIONS = ("up", "slow", "down", "silent")
SLOW_MS = 5_000

_BURST = 20
_BURST_SECONDS = 0.1
# What the official plugin drops silently it drops for a minute, so a few events show all there is to see.
_OFFICIAL_EVENTS = 100
_STARTED = dt.datetime(2026, 11, 23, 2, 40, tzinfo=dt.UTC)


def measure(servers: str, condition: str, events: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the seconds of each call and how many events were kept or delivered, by contender."""
    for name in CONTENDERS:
        count = _OFFICIAL_EVENTS if name == "official" and condition != "up" else events
        yield name, children.run("-m", "benchmarks.listening", name, servers, str(count))


def main() -> None:
    name, servers, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory(prefix="benchmark-airflow-") as home:
        result = run(name, servers, count, Path(home))
        print(json.dumps(result), flush=True)
        # Airflow's own threads and the contenders' have nothing more to do.
        os._exit(0)


def run(name: str, servers: str, count: int, home: Path) -> dict[str, Any]:
    prepare(servers, home)
    from airflow.models.dagrun import DagRun

    hook, accounted = {"ours": _ours, "official": _official}[name]()
    seconds = []
    next_burst = time.perf_counter()
    for number in range(count):
        if number % _BURST == 0:
            time.sleep(max(next_burst - time.perf_counter(), 0))
            next_burst = time.perf_counter() + _BURST_SECONDS
        run = make_run(DagRun, number)
        started = time.perf_counter()
        hook(run, "success")
        seconds.append(time.perf_counter() - started)
    return {"seconds": [round(one, 7) for one in seconds], "accounted": accounted(), "events": count}


def prepare(servers: str, home: Path) -> None:
    """Set this process up as one of an Airflow's, before Airflow is imported."""
    connection = json.dumps({"conn_type": "kafka", "extra": {"bootstrap.servers": servers}})
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        "AIRFLOW__WORKFLOW_EVENTS__LISTENER": "True",
        "AIRFLOW__KAFKA_EVENT_PRODUCER__DAG_RUN_EVENTS_ENABLED": "True",
        "AIRFLOW__KAFKA_EVENT_PRODUCER__TOPIC": "benchmark-events",
        "AIRFLOW__WORKFLOW_EVENTS__TOPIC": "benchmark-events",
        "AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT": connection,
        "AIRFLOW_CONN_KAFKA_DEFAULT": connection,
    }


def make_run(kind: Any, number: int) -> Any:
    """Return a run as the scheduler has it, a database row."""
    ended = _STARTED + dt.timedelta(seconds=274, milliseconds=number)
    run = kind(
        dag_id="daily_sales_report",
        run_id=f"scheduled__{number}",
        run_type="scheduled",
        logical_date=_STARTED,
        start_date=_STARTED,
        state="success",
    )
    run.clear_number, run.end_date = 0, ended
    return run


def _ours() -> tuple[Hook, Callable[[], int]]:
    from airflow_workflow_events import listeners, metrics, relaying

    class Job:
        """Stands for what Airflow hands to ``on_starting`` in a scheduler."""

    listeners.on_starting(Job())

    published = 0
    count = relaying.METRICS.incr

    def incr(name: str, value: int = 1, tags: Any = None) -> None:
        nonlocal published
        published += value if name == metrics.PUBLISHED else 0
        count(name, value, tags)

    relaying.METRICS.incr = incr

    def accounted() -> int:
        """Count what was delivered and what waits in the outbox, after the end that a scheduler makes."""
        listeners.before_stopping(Job())
        return published + listeners._outbox().totals().pending

    return listeners.on_dag_run_success, accounted


def _official() -> tuple[Hook, Callable[[], int]]:
    from airflow.providers.apache.kafka.plugins import event_producer

    taken: list[bool] = []
    report = event_producer._on_delivery

    def on_delivery(error: Any, message: Any) -> None:
        taken.append(error is None)
        report(error, message)

    event_producer._on_delivery = on_delivery

    def accounted() -> int:
        """Count what was delivered, after all the time a process that ends would give it."""
        if event_producer._producer is not None:
            event_producer._producer.flush(5)
        return sum(taken)

    return event_producer.DagRunListener().on_dag_run_success, accounted


if __name__ == "__main__":
    main()
