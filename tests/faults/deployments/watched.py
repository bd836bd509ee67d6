"""A deployment, its database and where its events go: together they are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.deployments.comparison import Comparison, compare
from tests.faults.deployments.production import TOPIC, Production, production_options
from tests.faults.deployments.sources import AirflowDatabase, messages_of
from tests.waiting import await_condition

#: What every test of a deployment is marked with, besides its timeout.
MARKS = (pytest.mark.airflow_e2e, pytest.mark.real_kafka, pytest.mark.xdist_group("airflow"))

_QUIET_SECONDS = 400
_DRAINED_SECONDS = 90
_SETTLED_SECONDS = 20


@dataclass
class Watched:
    """A deployment, its database and where its events go."""

    airflow: Production
    database: AirflowDatabase
    bootstrap_servers: str
    outbox_url: str | None = None
    """Where the one outbox is; ``None`` where each host has its own."""
    commands: list[str] = field(default_factory=list)
    """The names of commands that ran a DAG by themselves."""
    marked: list[tuple[str, str, str]] = field(default_factory=list)
    """DAG, run and task of tasks that were marked by hand."""

    def await_quiet(self) -> None:
        """Wait until no run is active."""
        await_condition(
            lambda: self.database.active_runs() == 0, timeout_seconds=_QUIET_SECONDS, what="all runs to end"
        )

    def compare(self) -> Comparison:
        """Compare, once the outboxes are empty and no event without a cause is missing any more."""
        outboxes = (
            self.airflow.outboxes() if self.outbox_url is None else [Outbox(OutboxDatabase(self.outbox_url))]
        )
        try:
            await_condition(
                lambda: sum(outbox.totals().pending for outbox in outboxes) == 0,
                timeout_seconds=_DRAINED_SECONDS,
                what="the outboxes to be empty",
            )
        finally:
            for outbox in outboxes:
                outbox.database.close()
        found = self._compare()
        with suppress(AssertionError):
            await_condition(
                lambda: not self._compare().unexplained,
                timeout_seconds=_SETTLED_SECONDS,
                what="the last events",
            )
            found = self._compare()
        return found

    def _compare(self) -> Comparison:
        # The database is read first: whatever it knows has been told to the listener before.
        transitions = self.database.transitions()
        seen: dict[str, Any] = {
            "transitions": transitions,
            "messages": messages_of(self.bootstrap_servers, TOPIC),
            "kills": self.airflow.kills,
            "commands": self.commands,
            "failing_fast": self.database.dags_failing_fast(),
            "marked": self.marked,
        }
        # Kept beside the logs: what is wrong can be traced once the database and the broker are gone.
        (self.airflow.home / "evidence.json").write_bytes(to_json(seen))
        return compare(**seen)


@contextmanager
def watched_deployment(
    tmp_path: Path,
    packages: Path,
    postgresql: PostgreSQL,
    kafka: KafkaCluster,
    *,
    dags: Path,
    executor: str,
    config: Mapping[str, str],
    on_database: Callable[[Production], None] = lambda _airflow: None,
    outbox_url: str | None = None,
) -> Iterator[Watched]:
    """A deployment in ``airflow`` under ``tmp_path`` that is not started yet, and its database, watched.

    Args:
        tmp_path: the test's own folder.
        packages, postgresql, kafka: the fixtures.
        dags: the folder of the DAG files.
        executor: of Airflow.
        config: further options of Airflow.
        on_database: starts what runs beside Airflow's four parts.
        outbox_url: where the one outbox is, if each host has not its own.
    """
    database_url = postgresql.new_database()
    home = tmp_path / "airflow"
    home.mkdir(exist_ok=True)
    if outbox_url is not None:
        config = {**config, "workflow_events.outbox_url": outbox_url}
    options = production_options(database_url, kafka.bootstrap_servers, executor=executor, config=config)
    database = AirflowDatabase(database_url)

    def begin(airflow: Production) -> None:
        database.watch()
        on_database(airflow)

    with Production(home, dags, packages=packages, on_database=begin, **options) as airflow:
        yield Watched(airflow, database, kafka.bootstrap_servers, outbox_url)
