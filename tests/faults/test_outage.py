"""While Kafka is away, processes accept events at once, as before; when it is back, all arrive in order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from airflow_workflow_events.outbox.database import LOCK_TIMEOUT_MS, OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from tests import broker as brokers
from tests.brokers.jvm import KafkaCluster
from tests.conftest import running_cluster
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.programs import PATIENCE_SECONDS, Program
from tests.waiting import await_condition

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(600)]

_TOPIC = "outage"
_PROCESSES = 4
#: An append waits for the lock that another process holds, and before that for its own process's relay, which
#: may be waiting for the same lock. Twice that, for a machine that has more to do than cores to do it.
_LONGEST_ACCEPT_SECONDS = 2 * 2 * LOCK_TIMEOUT_MS / 1000


@pytest.fixture
def cluster(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[KafkaCluster]:
    """A broker of the test's own, to be killed."""
    with running_cluster(pytestconfig, tmp_path / "kafka") as cluster:
        yield cluster


def test_events_of_four_processes_outlast_an_outage_that_none_of_them_waits_for(
    cluster: KafkaCluster, tmp_path: Path, scale: Scale, note_fault: NoteFault
) -> None:
    cluster.create_topic(_TOPIC, brokers.PARTITIONS)
    url, servers = f"sqlite:///{tmp_path}/outbox.db", cluster.bootstrap_servers
    down_seconds, count = scale.of(30, 3), scale.of(2_500, 250)
    processes = [
        Program("accepting", url, servers, _TOPIC, f"process{number}-", str(count))
        for number in range(_PROCESSES)
    ]
    outbox = Outbox(OutboxDatabase(url))
    try:
        for process in processes:
            process.expect("ready")
        [broker_id] = cluster.broker_ids
        cluster.kill(broker_id)
        went_down = monotonic()
        for process in processes:
            process.tell("begin")
        results = [json.loads(process.answer()) for process in processes]
        waiting = outbox.totals().pending
        await_condition(
            lambda: monotonic() >= went_down + down_seconds,
            timeout_seconds=PATIENCE_SECONDS,
            what="the outage to last as long as it is to",
        )
        cluster.start_broker(broker_id)
        was_down = monotonic() - went_down
        await_condition(
            lambda: outbox.totals().pending == 0,
            timeout_seconds=PATIENCE_SECONDS,
            what="the outbox to be empty",
        )
        came_through = monotonic() - went_down - was_down
        for process in processes:
            process.end()
    finally:
        for process in processes:
            process.clean_up()
    parked = outbox.totals().parked
    outbox.database.close()

    accepted: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for key, event_id in result["accepted"]:
            accepted[key].append(event_id)
    refused = {event_id for result in results for event_id in result["refused"]}
    longest = max(result["longest_seconds"] for result in results)
    messages = brokers.real(servers, "jvm").messages(_TOPIC, _PROCESSES * count)
    ledger = Ledger.of_messages(accepted, messages)
    note_fault(
        f"Kafka down for {was_down:.0f} s, four processes accept",
        1,
        ledger,
        f"longest accept {longest * 1000:.0f} ms; {waiting:,} waiting; {len(refused)} kept in memory; "
        f"all delivered {came_through:.0f} s after",
    )
    assert (ledger.lost, ledger.disordered, parked) == (0, 0, 0)
    assert refused <= {brokers.event_of(message).event_id for message in messages}
    assert longest < _LONGEST_ACCEPT_SECONDS
    # What it refused is kept in memory, and put into it as soon as it accepts, maybe before the count.
    assert waiting <= _PROCESSES * count, "nothing stands in the outbox twice"
    assert _PROCESSES * count <= waiting + len(refused), "everything was accepted while Kafka was away"
