"""Remembering which events were handled, so that one that is delivered again is not handled again.

Delivery is at least once: a relay, a retry or a rebalance may repeat an event, under the same ``event_id``.
Consumers that must not act twice keep the ids of what they have handled, as many as they can afford.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol

from airflow_workflow_events.errors import ConfigurationError

#: At 40 bytes an id in SQLite and about 120 in memory, this takes 4 and 12 MB.
DEFAULT_MAX_IDS = 100_000

_PRUNE_EVERY = 1_000
_BUSY_SECONDS = 10.0
_AGAIN_SECONDS = 0.01


class SeenEvents(Protocol):
    """What a consumer asks and tells. An id is added only after its event was handled."""

    def __contains__(self, event_id: str) -> bool:
        """Whether the event was handled."""
        ...

    def add(self, event_id: str) -> None:
        """Remember that the event was handled."""
        ...


class SeenInMemory:
    """The last ids, in memory: for repetitions while the process lives.

    Args:
        max_ids: how many to keep; the oldest go first. Default 100,000.

    Raises:
        ConfigurationError: ``max_ids`` is less than 1.
    """

    def __init__(self, max_ids: int = DEFAULT_MAX_IDS) -> None:
        self._max_ids = _at_least_one(max_ids)
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, event_id: str) -> None:
        """Remember that the event was handled."""
        self._ids[event_id] = None
        self._ids.move_to_end(event_id)
        if len(self._ids) > self._max_ids:
            self._ids.popitem(last=False)


class SeenInSqlite:
    """The last ids, in a file: for repetitions across restarts, and between processes of one host.

    Safe to use from several threads and, each with an object of its own, several processes.

    Args:
        path: the file; made if it does not exist, readable by its owner alone.
        max_ids: how many to keep; the oldest go first. Default 100,000.

    Raises:
        ConfigurationError: ``max_ids`` is less than 1, or the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], max_ids: int = DEFAULT_MAX_IDS) -> None:
        self._max_ids = _at_least_one(max_ids)
        self._lock = threading.Lock()
        self._added = 0
        try:
            Path(path).touch(mode=0o600, exist_ok=True)
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._turn_to_wal()
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS seen_events (number INTEGER PRIMARY KEY, event_id TEXT UNIQUE)"
            )
        except (OSError, TypeError, ValueError, sqlite3.Error) as error:
            raise ConfigurationError(f"cannot keep seen events in {path!r}: {error}") from None

    def __contains__(self, event_id: str) -> bool:
        with self._lock:
            found = self._database.execute("SELECT 1 FROM seen_events WHERE event_id = ?", (event_id,))
            return found.fetchone() is not None

    def __len__(self) -> int:
        with self._lock:
            count: int = self._database.execute("SELECT count(*) FROM seen_events").fetchone()[0]
            return count

    def add(self, event_id: str) -> None:
        """Remember that the event was handled."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO seen_events (event_id) VALUES (?)", (event_id,))
            self._added += 1
            if self._added % min(_PRUNE_EVERY, self._max_ids) == 0:
                self._database.execute(
                    "DELETE FROM seen_events WHERE number <= (SELECT max(number) FROM seen_events) - ?",
                    (self._max_ids,),
                )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __del__(self) -> None:
        # Python 3.13 warns of connections that are forgotten while they are open.
        with suppress(Exception):  # the file may never have been opened
            self._database.close()

    def _turn_to_wal(self) -> None:
        deadline = monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                # Two that turn a new file to WAL at once would wait for each other: SQLite refuses one of
                # them at once, whatever its timeout.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                    raise
                sleep(_AGAIN_SECONDS)
            else:
                return


def _at_least_one(max_ids: object) -> int:
    if not isinstance(max_ids, int) or isinstance(max_ids, bool) or max_ids < 1:
        raise ConfigurationError(f"max_ids is {max_ids!r}: use a whole number of 1 or more")
    return max_ids
