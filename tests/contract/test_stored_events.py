"""What triggers fire and sensors return can be stored in PostgreSQL and read back, whatever events hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from airflow.triggers.base import TriggerEvent
from pydantic import JsonValue, TypeAdapter
from sqlalchemy.dialects.postgresql import JSONB

from airflow_workflow_events.triggers import WorkflowEventTrigger
from tests.airflow_serde import deserialize, serialize
from tests.databases import PostgreSQL
from tests.hostile import HOSTILE_DATA, hostile_event, hostile_names
from tests.unit.kafka.scripted import Record

_STORED = sa.Table(
    "stored", sa.MetaData(), sa.Column("jsonb", JSONB), sa.Column("json", sa.JSON), sa.Column("text", sa.Text)
)
_NEXT_KWARGS = TypeAdapter(dict[str, JsonValue])  # as the API server answers them


@pytest.fixture(scope="module")
def database(postgresql: PostgreSQL) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgresql.new_database().replace("postgresql:", "postgresql+psycopg2:"))
    _STORED.create(engine)
    yield engine
    engine.dispose()


def between_processes(value: Any) -> Any:
    """What the other of two of Airflow's processes gets."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("name", [*HOSTILE_DATA, "NUL in every name"])
def test_a_hostile_event_comes_back_from_postgresql_as_it_was_fired(database: sa.Engine, name: str) -> None:
    event = hostile_names() if name == "NUL in every name" else hostile_event(name)
    found = WorkflowEventTrigger(event_type=None, once=True).judge(Record(0, 0, 1, event).taken)  # type: ignore[arg-type]
    fired = TypeAdapter(TriggerEvent).dump_python(TriggerEvent(found))["payload"]  # type: ignore[no-untyped-call]
    payload = between_processes(fired)
    next_kwargs = serialize({"event": payload})
    xcom = TypeAdapter(JsonValue).validate_python(between_processes(serialize(payload["event"])))
    extra = {"from_trigger": True, "payload": payload["event"]}

    with database.begin() as connection:
        connection.execute(_STORED.delete())
        connection.execute(_STORED.insert().values(jsonb=next_kwargs, json=extra, text=str(payload)))
        connection.execute(_STORED.insert().values(jsonb=json.dumps(xcom), json=extra))
        resumed, pulled = connection.scalars(sa.select(_STORED.c.jsonb).order_by(_STORED.c.text))
        asset_event = connection.scalars(sa.select(_STORED.c.json)).first()

    assert deserialize(between_processes(_NEXT_KWARGS.validate_python(resumed))) == {"event": payload}
    assert deserialize(between_processes(json.loads(pulled))) == payload["event"]
    assert between_processes(asset_event) == extra
