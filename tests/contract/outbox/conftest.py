"""Each test of the outbox runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Bounds
from airflow_workflow_events.outbox.store import Outbox
from tests.databases import PostgreSQL

MakeOutbox = Callable[..., Outbox]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/outbox/outbox.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def make_outbox(url: str) -> Iterator[MakeOutbox]:
    """Outboxes on the same database, as if of several processes."""
    databases = []

    def make(**bounds: object) -> Outbox:
        database = OutboxDatabase(url)
        databases.append(database)
        return Outbox(database, Bounds(**bounds))  # type: ignore[arg-type]

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def outbox(make_outbox: MakeOutbox) -> Outbox:
    """An empty outbox."""
    return make_outbox()
