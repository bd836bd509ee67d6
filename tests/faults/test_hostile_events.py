"""What is hostile on the topic harms no way of waiting, where Airflow's database is PostgreSQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Producer

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent
from airflow_workflow_events.errors import WorkflowEventsError
from airflow_workflow_events.events import DEFAULT_TOPIC, decode, to_json
from airflow_workflow_events.storable import storable
from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.airflow_e2e.watchers import position_of
from tests.airflow_versions import NO_ASYNC_DATABASE
from tests.databases import PostgreSQL
from tests.events import make_event
from tests.faults.conftest import NoteFault, Scale
from tests.faults.processes.airflow_parts import DAGS, AirflowParts
from tests.hostile import HOSTILE_DATA, hostile_event, hostile_names
from tests.poison_bombs import BOMBS

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(1_200)]


_INSTANCE = "hostile"
_PARTITIONS = 4
_SECONDS = 300
# Each keeps a worker busy while it waits.
_POKED = 3

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Raw:
    """A message as another program may write it."""

    value: bytes
    key: bytes | None = None
    headers: Headers | None = None


def _odd_forms() -> list[Raw]:
    """Events whose form is odd: whether they are events is for the package to say."""
    event = to_json(make_event(workflow_id="WORKFLOW"))
    again = event[:-1] + b', "workflow_id": "WORKFLOW", "event_id": "the second"}'
    much: Headers = [("ce_extension", b"x" * 800_000), ("", b""), ("ce_\xff\n", None), ("ce_id", b"\xff")]
    return [
        Raw(b"\xef\xbb\xbf" + event),
        Raw(again),
        Raw(event, key=b"\xff\xfe\0"),
        Raw(event, headers=much),
        Raw(event, headers=[("content-type", b"application/cloudevents+json; charset=latin-1")]),
        Raw(event[:-1] + b', "extension": "' + b"y" * 800_000 + b'"}'),
    ]


def _no_events() -> list[Raw]:
    event = json.loads(to_json(make_event(workflow_id="WORKFLOW")))
    data: list[Any] = ["\ud800", 2**1_100, float("nan"), float("inf")]
    return [
        *(Raw(json.dumps({**event, "payload": {"data": {"a": value}}}).encode()) for value in data),
        Raw(json.dumps({**event, "workflow_id": "WORKFLOW\ud800"}).encode()),
        Raw(json.dumps({**event, "source": "caf\xe9"}, ensure_ascii=False).encode("latin-1")),
        Raw(json.dumps(event).encode("utf-16")),
        Raw(b""),
    ]


def _named(raw: Raw, workflow_id: str) -> Raw:
    return Raw(raw.value.replace(b"WORKFLOW", workflow_id.encode()), raw.key, raw.headers)


def _as_event(raw: Raw) -> WorkflowEvent | None:
    try:
        return decode(raw.value, raw.headers)
    except WorkflowEventsError:
        return None


def _awaited() -> list[WorkflowEvent]:
    """Events that are hostile by what they hold."""
    events = [*map(hostile_event, HOSTILE_DATA), hostile_names()]
    return [
        event.model_copy(update={"workflow_id": f"hostile_{number:02d}{event.workflow_id}"})
        for number, event in enumerate(events)
    ]


class Hostile:
    """An Airflow on PostgreSQL whose sensors and watcher wait for hostile events."""

    def __init__(self, airflow: AirflowParts, broker: EmbeddedBroker, database: sa.Engine) -> None:
        self.airflow, self._broker, self._database = airflow, broker, database
        self._producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        self._written = 0

    def write(self, raw: Raw) -> None:
        """Put a message on the topic, on each partition in turn; returns once it is there."""
        self._written += 1
        self._producer.produce(
            DEFAULT_TOPIC,
            value=raw.value,
            key=raw.key,
            headers=raw.headers or [],
            partition=self._written % _PARTITIONS,
        )
        assert self._producer.flush(60) == 0

    def await_watcher(self) -> None:
        """Wait until the watcher has a position."""
        group_id = WorkflowEventTrigger(workflow_id="hostile_*").effective_group_id
        self.airflow.await_condition(
            lambda: position_of(group_id, self._broker.bootstrap_servers, DEFAULT_TOPIC),
            _SECONDS,
            "the watcher to be at work",
        )

    def tasks(self, run_id: str) -> dict[tuple[str, int], str]:
        """The states of a run's tasks."""
        path = f"/dags/hostile/dagRuns/{run_id}/taskInstances?limit=100"
        found = self.airflow.get(path)["task_instances"]
        return {(one["task_id"], one["map_index"]): one["state"] for one in found}

    def result(self, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
        """The event that a sensor has returned."""
        path = f"/dags/hostile/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        found = self.airflow.get(f"{path}?map_index={map_index}&stringify=false")["value"]
        event: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
        return event

    def asset_events(self) -> dict[str, dict[str, Any]]:
        """The events that the watcher has had, by their ids."""
        with self._database.connect() as connection:
            extras = connection.scalars(sa.text("SELECT extra FROM asset_event")).all()
        payloads = [(json.loads(extra) if isinstance(extra, str) else extra)["payload"] for extra in extras]
        return {payload["event_id"]: payload for payload in payloads}


@pytest.fixture
def hostile(
    tmp_path: Path, postgresql: PostgreSQL, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hostile]:
    if not scale.full:
        pytest.skip("takes a minute or two: FAULTS=full")
    url = postgresql.new_database().replace("postgresql:", "postgresql+psycopg2:")
    monkeypatch.setenv("AIRFLOW__WORKFLOW_EVENTS__SOURCE_INSTANCE", _INSTANCE)
    monkeypatch.setenv("HOSTILE_EVENTS", str(len(_awaited())))
    monkeypatch.setenv("HOSTILE_POKED", str(_POKED))
    database = sa.create_engine(url, poolclass=sa.NullPool)
    with EmbeddedBroker(topics={DEFAULT_TOPIC: _PARTITIONS}) as broker:
        extra = {"bootstrap.servers": broker.bootstrap_servers}
        connections = {"workflow_events_default": {"conn_type": "workflow_events", "extra": extra}}
        config = {
            "workflow_events.source_instance": _INSTANCE,
            "core.parallelism": "8",
            "database.sql_alchemy_conn": url,
            "database.sql_alchemy_conn_async": NO_ASYNC_DATABASE,
        }
        with AirflowParts(tmp_path, DAGS / "hostile", connections=connections, config=config) as airflow:
            airflow.start(_SECONDS)
            airflow.await_dags({"hostile", "started_by_hostile"}, _SECONDS)
            yield Hostile(airflow, broker, database)


def test_hostile_events_reach_those_who_wait_and_end_nothing(hostile: Hostile, note_fault: NoteFault) -> None:
    airflow, awaited = hostile.airflow, _awaited()
    run_id = airflow.trigger("hostile", f"run__{uuid.uuid4()}")
    indices = range(len(awaited))
    waiting = {(task_id, index): "deferred" for task_id in ("goes_on", "ends") for index in indices}
    waiting |= {("pokes", index): "running" for index in range(_POKED)}
    airflow.await_condition(lambda: hostile.tasks(run_id) == waiting, _SECONDS, "all to wait")
    hostile.await_watcher()
    triggerer = airflow.pid("triggerer")

    # What is no event, and would be for those who wait; events of odd forms for the watcher alone.
    poison = [_named(raw, "hostile_00") for raw in _no_events()]
    poison += [Raw(value) for value in list(BOMBS.values())[::5]]
    odd = [_named(raw, f"hostile_odd_{number}") for number, raw in enumerate(_odd_forms())]
    assert [raw.value[:200] for raw in poison[: len(_no_events())] if _as_event(raw)] == []
    for raw in (*poison, *odd, *(Raw(to_json(event)) for event in awaited)):
        hostile.write(raw)

    expected = [storable(event.model_dump(mode="json", exclude_none=True)) for event in awaited]
    ended = dict.fromkeys(waiting, "success")

    def all_ended() -> bool:
        found = hostile.tasks(run_id)
        assert "failed" not in found.values(), f"{found}; {airflow.log('triggerer')[-4000:]}"
        return found == ended

    airflow.await_condition(all_ended, _SECONDS, "all to have had their events")
    for task_id, index in ended:
        assert hostile.result(run_id, task_id, index) == expected[index], (task_id, index)

    odd_events = [event for event in map(_as_event, odd) if event is not None]
    ids = {str(event["event_id"]) for event in expected} | {event.event_id for event in odd_events}
    airflow.await_condition(lambda: hostile.asset_events().keys() >= ids, _SECONDS, "the watcher's events")
    stored = hostile.asset_events()
    for event in expected:
        assert stored[event["event_id"]] == event
    assert airflow.pid("triggerer") == triggerer
    note_fault(
        "hostile events on PostgreSQL: deferred, ended by the trigger, poking, watched",
        len(poison) + len(odd) + len(awaited),
        remark=f"{len(ended)} sensors and a watcher had theirs, the same triggerer at the end",
    )
