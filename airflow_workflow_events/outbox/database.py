"""The database an outbox lives in: opened, brought to the current schema, and safe across forks.

SQLite on one host by default, PostgreSQL for many hosts.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from airflow_workflow_events import forks
from airflow_workflow_events.errors import OutboxUnavailableError, masked, printable
from airflow_workflow_events.interruptions import acquire, release
from airflow_workflow_events.outbox.engines import LOCK_TIMEOUT_MS, make_engine, parsed_url, secrets_of
from airflow_workflow_events.outbox.files import identity_of, prepare_file

__all__ = ["LOCK_TIMEOUT_MS", "OutboxDatabase"]

log: logging.Logger = logging.getLogger(__name__)

# Any number will do, as long as no other program locks the same one in a shared database.
_SCHEMA_LOCK = 7_304_118_052_219
_CLAIM_LOCK = 7_304_118_052_220
_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")


class OutboxDatabase:
    """A database with the outbox's tables; every call to it is bounded in time, by the database's means.

    (A PostgreSQL server that is halted in the middle of its work keeps a call waiting, as it does Airflow's.)

    Args:
        url: SQLAlchemy's URL, ``sqlite:///file`` or ``postgresql://...``.
        strict_path: whether a relative path, or a file whose folder does not exist, is taken for a mistake.
            Default ``False``: the folder is made.

    Raises:
        ConfigurationError: the URL is of another kind of database, has options that its driver does not
            take, or is no URL.
    """

    def __init__(self, url: str, *, strict_path: bool = False) -> None:
        self._url = parsed_url(url)
        self.kind: str = self._url.get_backend_name()
        # By the bare name SQLAlchemy 2.1 means another driver than before, and than Airflow's images have.
        if self._url.drivername == "postgresql" and find_spec("psycopg2") is not None:
            self._url = self._url.set(drivername="postgresql+psycopg2")
        self._strict_path = strict_path
        self._secrets = secrets_of(self._url)
        self._engine: Engine | None = None
        self._ready = False
        self._file: tuple[int, int] | None = None
        _databases.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __del__(self) -> None:
        # Python 3.13 warns of SQLite connections that are forgotten while they are open.
        with suppress(Exception):  # the constructor may have failed, and modules be gone at exit
            self.close()

    @property
    def name(self) -> str:
        """The URL without its passwords."""
        shown = self._url.set(query={}) if self._secrets else self._url
        return shown.render_as_string(hide_password=True)

    @property
    def place(self) -> str:
        """The file, or the server and its database, for people.

        Never the URL as it was given: Airflow masks it wherever it stands, as the option may hold a password.
        """
        if self.kind == "sqlite":
            return str(self._url.database)
        return self._url.set(query={}).render_as_string(hide_password=True).partition("://")[2]

    def check(self) -> None:
        """Raise if the database cannot be used, as far as that can be said without connecting to a server.

        Raises:
            OutboxUnavailableError: the driver is not installed, or there can be no such file.
        """
        with self._translated():
            if self.kind == "sqlite":
                self._prepare_file()
            else:
                make_engine(self._url).dispose()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection for one short piece of work, committed at its end.

        Raises:
            OutboxUnavailableError: the database cannot be used; the message says why.
        """
        with self._usable(), self._engine_of_this_process().connect() as connection:
            yield connection
            connection.commit()

    def execute(self, statement: sa.TextClause, parameters: Mapping[str, Any]) -> int:
        """Execute one statement by itself and return how many rows it touched.

        SQLite's driver gets it directly: a scheduler's thread waits for this, and what SQLAlchemy does for a
        single insert takes half as long as SQLite itself.

        Args:
            statement: an SQL text that both kinds of database read.
            parameters: its values, by name.

        Raises:
            OutboxUnavailableError: the database cannot be used; the message says why.
        """
        if self.kind != "sqlite":
            with self.connect() as connection:
                return connection.execute(statement, parameters).rowcount
        with self._usable():
            pooled = self._engine_of_this_process().raw_connection()
            try:
                cursor = pooled.cursor()
                cursor.execute(statement.text, parameters)
                return cursor.rowcount
            finally:
                pooled.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection whose statements take effect together, one such piece of work after another.

        Raises:
            OutboxUnavailableError: the database cannot be used, or others held it for too long.
        """
        with self.connect() as connection:
            self._begin(connection, _CLAIM_LOCK)
            yield connection

    def checkpoint(self) -> None:
        """Fold SQLite's log into its file as far as nobody is in the way."""
        if self.kind == "sqlite":
            with self.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def look_at_file(self) -> None:
        """Leave a file of SQLite's that was removed or replaced while in use, after a warning."""
        with self._translated(), _no_fork_meanwhile(self.kind):
            self._notice_another_file()

    def _notice_another_file(self) -> None:
        if self.kind != "sqlite" or not self._ready:
            return
        if identity_of(Path(str(self._url.database))) == self._file:
            return
        log.warning(
            "the outbox at %s was removed or replaced while it was in use: what waited in it is not "
            "delivered any more, and the file that is there now is used, or a new one made",
            printable(self.place),
        )
        self.leave_file()
        self._ready = False

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with _no_fork_meanwhile(self.kind):
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _begin(self, connection: Connection, lock: int) -> None:
        if self.kind == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself begins nothing, see _prepare
        else:
            # SKIP LOCKED alone would let a relay take the second event of a run while another, whose
            # transaction it cannot see yet, takes the first.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})

    def _engine_of_this_process(self) -> Engine:
        if self._engine is None:
            self._engine = make_engine(self._url)
        return self._engine

    def _open(self) -> None:
        if self.kind == "sqlite":
            self._prepare_file()
        with self._engine_of_this_process().connect() as connection:
            if self.kind == "sqlite" and _journal_mode(connection) != "wal":
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            self._begin(connection, _SCHEMA_LOCK)
            self._upgrade(connection)
            connection.commit()
        if self.kind == "sqlite":
            self._file = identity_of(Path(str(self._url.database)))
        self._ready = True

    def _prepare_file(self) -> None:
        prepare_file(Path(str(self._url.database)), strict=self._strict_path)

    def _upgrade(self, connection: Connection) -> None:
        steps = _schema_steps(self.kind)
        connection.execute(
            sa.text("CREATE TABLE IF NOT EXISTS workflow_events_outbox_schema (version INTEGER NOT NULL)")
        )
        found = connection.execute(sa.text("SELECT max(version) FROM workflow_events_outbox_schema")).scalar()
        version = int(found or 0)
        if version > max(steps):
            raise OutboxUnavailableError(
                f"the outbox at {self.place} has schema version {version}, and this library knows "
                f"{max(steps)}: upgrade it, or give it an outbox of its own"
            )
        for number, statements in sorted(steps.items()):
            if number > version:
                for statement in statements:
                    connection.exec_driver_sql(statement)
                connection.execute(
                    sa.text("INSERT INTO workflow_events_outbox_schema VALUES (:number)"), {"number": number}
                )

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Have the tables there, and errors in this package's words."""
        with self._translated(), _no_fork_meanwhile(self.kind), self._renewed_after_errors():
            if self._engine is None:
                self._notice_another_file()
            if not self._ready:
                self._open()
            yield

    @contextmanager
    def _renewed_after_errors(self) -> Iterator[None]:
        """Open the file anew after an error: a connection made while it was read-only would stay so."""
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            self.leave_file()
            if "no such table" in str(getattr(error, "orig", error)):
                self._ready = False  # somebody emptied the file
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, ImportError, UnicodeError) as error:
            # SQLAlchemy's text repeats the parameters, which are the event.
            cause = getattr(error, "orig", None) or error
            reason = masked(" ".join(str(cause).split()), self._secrets)
            if isinstance(error, ImportError) and self.kind == "postgresql":
                reason += "; pip install 'airflow-workflow-events[postgres]'"
            raise OutboxUnavailableError(
                f"the outbox at {self.place} cannot be used ({type(cause).__name__}: {printable(reason)})"
            ) from None

    def leave_file(self) -> None:
        """Close SQLite's connections; the next call opens new ones."""
        if self.kind == "sqlite" and self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def leave_to_parent(self) -> None:
        """In the child of a fork: forget the parent's connections without touching them."""
        if self._engine is not None:
            # Closing an SQLite connection of the parent's would disturb its locks, and PostgreSQL's would end
            # its session, so they are kept for as long as the child lives.
            _inherited.append(self._engine)
            self._engine = None


def _journal_mode(connection: Connection) -> str:
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())


def _schema_steps(kind: str) -> dict[int, list[str]]:
    folder = resources.files(__package__) / "sql" / kind
    steps = {}
    for file in folder.iterdir():
        if found := _NUMBERED.fullmatch(file.name):
            steps[int(found[1])] = file.read_text(encoding="utf-8").split("--;")
    return steps


# A fork while another thread is inside SQLite would leave the child a mutex of SQLite's that nobody gives
# back. So nobody is inside while this process forks: calls are short, and the fork waits for one to end.
class _Held(threading.local):
    def __init__(self) -> None:
        self.gates: list[Any] = []


_gate = threading.RLock()
_GATE_SECONDS = 2.0
_held_for_fork = _Held()
# Where a fork could not wait for that: see _before_fork.
_inherits_locks = False
_databases: weakref.WeakSet[OutboxDatabase] = weakref.WeakSet()
_inherited: list[Engine] = []


@contextmanager
def _no_fork_meanwhile(kind: str) -> Iterator[None]:
    # The driver and SSL have locks; and threads that use the file one after another let a fork have its turn.
    with forks.critical_section():
        if kind != "sqlite":
            yield
            return
        if _inherits_locks:
            raise OutboxUnavailableError(
                "this process was forked in the middle of its parent's use of the outbox"
            )
        gate = _gate
        if not gate.acquire(timeout=_GATE_SECONDS):
            raise OutboxUnavailableError("another thread has kept the outbox busy for too long")
        try:
            yield
        finally:
            gate.release()


def _before_fork() -> None:
    if not _held_for_fork.gates:  # or else a signal handler interrupted the first attempt
        acquire(_gate, _GATE_SECONDS, _held_for_fork.gates)
    if _held_for_fork.gates:
        # SQLite remembers in a process which locks it has, and a child has none of its parent's: one that
        # inherits this memory never takes any, and others remove the log that it writes to.
        for database in list(_databases):
            with suppress(Exception):  # whatever it is, a process must be able to fork
                database.leave_file()


def _after_fork_in_parent() -> None:
    release(_held_for_fork.gates)


def _after_fork_in_child() -> None:
    global _gate, _inherits_locks  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _gate = threading.RLock()
    _inherits_locks = _inherits_locks or not _held_for_fork.gates
    _held_for_fork.gates.clear()
    for database in list(_databases):
        database.leave_to_parent()


forks.register(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
