"""What a backlog costs: how fast the relay works it off, what it does to an append, what it does to memory.

As a program, ``python -m benchmarks.backlog drain SERVERS EVENTS``, ``append ROWS APPENDS`` or
``memory SERVERS EVENTS``, it makes one of these measurements.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from airflow_workflow_events import WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE, Bounds
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from benchmarks import children, events
from benchmarks.events import TOPIC
from tests.waiting import await_condition

_BOUNDS = Bounds(max_rows=5_000_000, max_bytes=1 << 40)
_SAMPLES = 50
_DAGS, _AT_ONCE, _OF_RUN = 300, 60, 8
# Copies rows, under ids and places of their own: appending a million one by one would take minutes.
_COPY = (
    "INSERT INTO workflow_events_outbox (id, aggregatetype, aggregateid, type, payload, topic, conn_id, "
    "environment_is_default, size_bytes, created_at) "
    "WITH RECURSIVE copy(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM copy WHERE number < {copies}) "
    "SELECT id || '-' || number, aggregatetype, aggregateid || '-' || number, type, payload, topic, conn_id, "
    "environment_is_default, size_bytes, created_at FROM workflow_events_outbox, copy"
)


def drain(servers: str, count: int) -> dict[str, Any]:
    """Measure how long the relay takes over a backlog, in a process of its own."""
    return dict(children.run("-m", "benchmarks.backlog", "drain", servers, str(count)))


def append(rows: int, appends: int) -> list[float]:
    """Measure the seconds of each append to an outbox that holds so many rows already."""
    return list(children.run("-m", "benchmarks.backlog", "append", str(rows), str(appends)))


def memory(servers: str, count: int) -> list[list[float]]:
    """Measure resident memory, in bytes, as so many events go through one process."""
    return list(children.run("-m", "benchmarks.backlog", "memory", servers, str(count)))


def _drain(folder: Path, servers: str, count: int) -> dict[str, Any]:
    outbox = _outbox(folder)
    for event in _events(count):
        outbox.append(event)
    relay = Relay(outbox, lambda _conn_id: _destination(servers))
    relay.prepare()
    started, cpu = time.perf_counter(), time.process_time()
    done = relay.drain()
    taken, cpu = time.perf_counter() - started, time.process_time() - cpu
    if (done.delivered, outbox.totals().pending) != (count, 0):
        raise SystemExit(f"{done} of {count} events; {outbox.totals()} are left")
    relay.close()
    return {"events": count, "seconds": taken, "cpu": cpu}


def _append(folder: Path, rows: int, appends: int) -> list[float]:
    outbox = _outbox(folder)
    made = list(_events(appends + 1_000))
    if rows:
        for event in made[-1_000:]:
            outbox.append(event)
        with outbox.database.connect() as connection:
            connection.exec_driver_sql(_COPY.format(copies=rows // 1_000 - 1))
        outbox.database.checkpoint()
        if outbox.totals().pending != rows:
            raise SystemExit(f"{outbox.totals()} in the outbox instead of {rows} rows")
    seconds = []
    for event in made[:appends]:
        started = time.perf_counter()
        outbox.append(event)
        seconds.append(round(time.perf_counter() - started, 7))
    return seconds


def _memory(folder: Path, servers: str, count: int) -> list[list[float]]:
    outbox = _outbox(folder)
    relay = BackgroundRelay(outbox, Relay(outbox, lambda _conn_id: _destination(servers)))
    relay.start()
    samples: list[list[float]] = []
    for number, event in enumerate(_events(count)):
        if number % (count // _SAMPLES) == 0:
            await_condition(  # as fast as the relay delivers
                lambda: outbox.totals().pending <= 1_000, timeout_seconds=60, what="the relay to catch up"
            )
            samples.append([number, _resident_bytes()])
        relay.accept(event, DEFAULT_ROUTE, environment_is_default=False)
    if not relay.stop(60) or outbox.totals().pending:
        raise SystemExit(f"the relay did not end: {outbox.totals()}")
    samples.append([count, _resident_bytes()])
    return samples


def _events(count: int) -> Iterator[WorkflowEvent]:
    """Make events as hundreds of DAGs do: sixty runs at a time, of eight events each."""
    [template] = events.events(1)
    for number in range(count):
        run = number // (_AT_ONCE * _OF_RUN) * _AT_ONCE + number % _AT_ONCE
        yield template.model_copy(
            update={
                "event_id": str(uuid5(NAMESPACE_OID, str(number))),
                "workflow_id": f"dag_{run % _DAGS}",
                "workflow_run_id": f"scheduled__2026-11-22T00:00:00+00:00__{run}",
            }
        )


def _outbox(folder: Path) -> Outbox:
    return Outbox(OutboxDatabase(f"sqlite:///{folder}/outbox.db"), _BOUNDS, default_topic=TOPIC)


def _destination(servers: str) -> ProducerDestination:
    return ProducerDestination(WorkflowEventProducer(servers, topic=TOPIC, config=RELAY_OPTIONS))


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)


def main() -> None:
    what, arguments = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="benchmark-outbox-") as name:
        folder = Path(name)
        if what == "append":
            result: Any = _append(folder, int(arguments[0]), int(arguments[1]))
        else:
            result = {"drain": _drain, "memory": _memory}[what](folder, arguments[0], int(arguments[1]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
