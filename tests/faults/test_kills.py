"""Processes that append and relay are killed at every step, and at any moment: nothing is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.kafka.destination import RELAY_OPTIONS, ProducerDestination
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.broker import Broker
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.processes.killed import APPENDERS_STEPS, AT_RANDOM, RELAYS_STEPS, Job
from tests.faults.programs import PATIENCE_SECONDS, Program
from tests.waiting import await_condition

pytestmark = pytest.mark.timeout(900)

_SEED = 20_261_124


def shared_out(deaths: Sequence[str], random: Random) -> list[list[str]]:
    """Deaths in any order, half of them for each of two parents."""
    mixed = random.sample(deaths, len(deaths))
    return [mixed[::2], mixed[1::2]]


def accepted_of(notes: Path) -> dict[str, list[str]]:
    """What appenders noted, by ordering key."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in notes.iterdir():
        for line in file.read_text().splitlines():
            key, event_id = line.rsplit(" ", 1)
            found[key].append(event_id)
    return found


def test_what_was_accepted_survives_kills_at_every_step_and_at_any_moment(
    url: str, topic: str, best_broker: Broker, tmp_path: Path, scale: Scale, note_fault: NoteFault
) -> None:
    random, of_step, servers = Random(_SEED), scale.of(12, 1), best_broker.bootstrap_servers
    notes = tmp_path / "notes"
    notes.mkdir()
    plan = {
        "append": [*APPENDERS_STEPS * of_step, *[AT_RANDOM] * scale.of(50, 2)],
        "relay": [*RELAYS_STEPS * of_step, *[AT_RANDOM] * scale.of(90, 2)],
    }

    def start(role: str, name: str, deaths: list[str]) -> Program:
        seed = random.randrange(2**32)
        job = Job(role, name, url, servers, topic, str(notes / name), seed, deaths)  # type: ignore[arg-type]
        return Program("killed", job.to_json())

    parents = {
        role: [
            start(role, f"{role}{number}", half)
            for number, half in enumerate(shared_out(deaths, random), start=1)
        ]
        for role, deaths in plan.items()
    }
    outbox = Outbox(OutboxDatabase(url))
    producer = WorkflowEventProducer(servers, topic=topic, config=RELAY_OPTIONS)
    survivor = BackgroundRelay(outbox, Relay(outbox, lambda _conn_id: ProducerDestination(producer)))
    try:
        for parent in parents["relay"]:
            parent.expect("done")
            parent.end()
        survivor.start()
        for parent in parents["append"]:
            parent.expect("done")
            parent.end()
        await_condition(
            lambda: outbox.totals().pending == 0,
            timeout_seconds=PATIENCE_SECONDS,
            what="the outbox to be empty",
        )
        assert survivor.stop(PATIENCE_SECONDS)
    finally:
        for parent in [*parents["append"], *parents["relay"]]:
            parent.clean_up()
    parked = outbox.totals().parked
    outbox.database.close()

    accepted = accepted_of(notes)
    everything = sum(map(len, accepted.values()))
    messages = best_broker.messages(topic, everything, timeout_seconds=PATIENCE_SECONDS)
    ledger = Ledger.of_messages(accepted, messages)
    kills = sum(map(len, plan.values()))
    steps = len(APPENDERS_STEPS) + len(RELAYS_STEPS)
    note_fault(
        f"kill -9 of processes that append and relay, {'SQLite' if 'sqlite' in url else 'PostgreSQL'}",
        kills,
        ledger,
        f"{of_step} at each of {steps} steps, {kills - steps * of_step} at random; "
        f"{ledger.unknown} accepted of which nobody knew, {parked} parked",
    )
    assert (ledger.lost, ledger.disordered, parked) == (0, 0, 0)
    assert everything > kills
