"""Members of a group are killed, join and leave under load: no event and no dead letter is lost."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from airflow_workflow_events import WorkflowEventProducer
from tests.broker import Broker
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.ledger import Ledger
from tests.faults.processes.consuming import Job
from tests.faults.programs import PATIENCE_SECONDS, Program
from tests.waiting import await_condition

pytestmark = [pytest.mark.timeout(900), pytest.mark.real_kafka]

_SEED = 20_261_125
_MEMBERS = 3
_RUNS = 40


def handled(notes: Path) -> list[tuple[int, str, str]]:
    """When, which key and which id, of each handling, in the order of the machine's clock."""
    found = []
    for file in notes.iterdir():
        for line in file.read_text().splitlines():
            when, key, event_id = line.split(" ")
            found.append((int(when), key, event_id))
    return sorted(found)


@contextmanager
def load(servers: str, topic: str, accepted: dict[str, list[str]]) -> Iterator[list[int]]:
    """Publish without a pause, events and now and then what is none; yields the number of the latter."""
    over, poisons = threading.Event(), [0]

    def publish() -> None:
        raw = Producer({"bootstrap.servers": servers, "log_level": 0})
        with WorkflowEventProducer(servers, topic=topic) as producer:
            number = 0
            while not over.wait(0.02):
                batch = [make_event(workflow_run_id=f"run_{(number + at) % _RUNS}") for at in range(20)]
                number += 20
                for event, report in zip(batch, producer.publish_events(batch), strict=True):
                    assert report.delivered
                    accepted[event.ordering_key].append(event.event_id)
                raw.produce(topic, value=b"{", key=str(number))
                assert raw.flush(30) == 0
                poisons[0] += 1

    thread = threading.Thread(target=publish)
    thread.start()
    yield poisons
    over.set()
    thread.join()


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_kills_of_members_lose_nothing(
    strategy: str, real_broker: Broker, tmp_path: Path, scale: Scale, note_fault: NoteFault
) -> None:
    random, kills, pause = Random(_SEED), scale.of(100, 4), threading.Event()
    topic, dead = f"faults-{uuid4()}", f"faults-dead-{uuid4()}"
    real_broker.create_topic(topic)
    real_broker.create_topic(dead)
    servers, group = real_broker.bootstrap_servers, f"group-{uuid4()}"
    accepted: dict[str, list[str]] = defaultdict(list)
    made = 0

    with ExitStack() as programs:

        def join() -> Program:
            nonlocal made
            made += 1
            job = Job(servers, group, topic, dead, strategy, str(tmp_path / f"member{made}"))
            return programs.enter_context(Program("consuming", job.to_json()))

        members = [join() for _ in range(_MEMBERS)]
        for member in members:
            member.expect("ready")
        with load(servers, topic, accepted) as poisons:
            for _ in range(kills):
                pause.wait(random.uniform(0.2, 2.5))  # at any moment, also amid a rebalance
                members.pop(random.randrange(len(members))).kill()
                members.append(join())
        everything = sum(map(len, accepted.values()))
        await_condition(
            lambda: len({event_id for _, _, event_id in handled(tmp_path)}) >= everything,
            timeout_seconds=PATIENCE_SECONDS,
            what=f"{everything} events to be handled",
        )
        letters = real_broker.messages(dead, poisons[0], timeout_seconds=PATIENCE_SECONDS)

    ledger = Ledger.of(accepted, [(key, event_id) for _, key, event_id in handled(tmp_path)])
    note_fault(
        f"kill -9 of members of a consumer group, {strategy}",
        kills,
        ledger,
        f"{poisons[0]} dead letters, {len(letters) - poisons[0]} of them twice",
    )
    assert (ledger.lost, ledger.disordered) == (0, 0)
    assert len({letter.key() for letter in letters}) == poisons[0]
