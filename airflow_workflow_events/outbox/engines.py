"""How an outbox's database is opened, by SQLAlchemy's URL."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.pool import QueuePool

from airflow_workflow_events.errors import ConfigurationError, printable

#: How long one call may wait for a lock that another process holds, in milliseconds. A scheduler calls this.
LOCK_TIMEOUT_MS = 250

_CONNECT_TIMEOUT_SECONDS = 3
_STATEMENT_TIMEOUT_MS = 5_000
# A host cut off inside a transaction would keep its locks for as long as the server's TCP waits, which is
# hours, and hold up every other relay and append. Less than the statements that wait for them may take.
_IDLE_IN_TRANSACTION_MS = 3_000
# Appending must not pay for a checkpoint, which takes milliseconds: the relay makes them. This is the size of
# the log, in pages of 4 KiB, at which an append does it after all, because no relay seems to be running.
_LAST_RESORT_CHECKPOINT_PAGES = 16_384
# Options of libpq bound the calls, and waiting in an event loop is for none of these processes.
_DRIVERS = {"sqlite": ("pysqlite",), "postgresql": ("psycopg2", "psycopg")}
_SECRET_OPTION = re.compile("password|secret|token", re.IGNORECASE)


def make_engine(url: URL) -> Engine:
    """Return an engine whose every call is bounded in time, by the database's means."""
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            url,
            future=True,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=LOCK_TIMEOUT_MS / 1000,
            pool_reset_on_return="rollback",
            connect_args={"check_same_thread": False, "timeout": LOCK_TIMEOUT_MS / 1000},
        )
        sa.event.listen(engine, "connect", _prepare)
        return engine
    return sa.create_engine(
        url,
        future=True,
        pool_size=2,
        pool_timeout=_CONNECT_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            # libpq's: a host that is gone is noticed in seconds, for which TCP alone takes many minutes.
            "tcp_user_timeout": _STATEMENT_TIMEOUT_MS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "options": (
                f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} "
                f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS}"
            ),
        },
    )


def _prepare(connection: Any, _record: object) -> None:
    # The driver would open transactions of its own, deferred ones, which fail where two of them write.
    connection.isolation_level = None
    # One row that somebody has damaged must not keep the others from being read with it.
    connection.text_factory = _text
    # A killed process loses nothing with NORMAL; a host that loses power may lose the last moments.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={_LAST_RESORT_CHECKPOINT_PAGES}")


def _text(data: bytes) -> str:
    """Return a text of SQLite's; what is not UTF-8 in it becomes surrogates, which no event can hold."""
    return data.decode("utf-8", "surrogateescape")


def parsed_url(text: str) -> URL:
    """Return an outbox's URL.

    Raises:
        ConfigurationError: it is none, or no outbox can live there; the message holds nothing of it but the
            kind of database and driver, as it may hold a password.
    """
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is no number
        raise ConfigurationError(
            "the outbox's URL cannot be read: use sqlite:////path/outbox.db or postgresql://user@host/db"
        ) from None
    # What follows the first @ would be taken for the host, and be shown, and told by the driver.
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        raise ConfigurationError(
            "the outbox's URL has more than one @, or a / before it: write @ in a user name or password as "
            "%40, and / in a user name as %2F"
        )
    kind, _, driver = url.drivername.partition("+")
    if kind not in _DRIVERS:
        raise ConfigurationError(f"the outbox cannot live in {printable(kind)}: use sqlite or postgresql")
    if driver and driver not in _DRIVERS[kind]:
        raise ConfigurationError(
            f"the outbox cannot use {kind} by {printable(driver)}: use {' or '.join(_DRIVERS[kind])}"
        )
    if kind == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ConfigurationError("the outbox needs a file: use sqlite:////path/outbox.db")
    try:
        url.get_dialect()().create_connect_args(url)
    except (ValueError, TypeError):  # SQLAlchemy converts the options of drivers it knows
        raise ConfigurationError("the outbox's URL has an option after the ? that cannot be used") from None
    return url


def secrets_of(url: URL) -> list[str]:
    """Return the passwords of a URL, in which some drivers take them as options as well."""
    values: list[str] = [url.password] if url.password else []
    for name, value in url.query.items():
        if _SECRET_OPTION.search(name):
            values += [value] if isinstance(value, str) else value
    return [form for value in values if value for form in {value, quote(value), quote_plus(value)}]
