"""The outbox: what it accepts is delivered at least once, under the same id, or visibly parked."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from airflow_workflow_events.errors import OutboxFullError, printable
from airflow_workflow_events.events.codec import to_json
from airflow_workflow_events.events.model import DEFAULT_TOPIC, WorkflowEvent
from airflow_workflow_events.outbox import statements
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import (
    DEFAULT_ROUTE,
    Bounds,
    OutboxEntry,
    ParkedEntry,
    Route,
    Totals,
)

log: logging.Logger = logging.getLogger(__name__)

#: How long an entry's last error may be, in characters: enough for librdkafka's texts.
_MAX_ERROR_CHARACTERS = 1_000
# How many of the oldest go at once where room is made: making it for each event anew would cost every append.
_DROPPED_AT_ONCE = 100
# Relays that died without signing off are kept for whoever looks for them, for a day.
_REMEMBERED_SECONDS = 86_400


class Outbox:
    """A durable queue of events on their way to Kafka; safe for threads, processes and forks.

    Args:
        database: where it lives.
        bounds: how large it may become. Default: :class:`Bounds`.
        default_topic: what Debezium's router is told where an event names no topic.
        derived: names in ``payload.data`` whose values may differ where the same event is told twice.
            Default: none.
    """

    def __init__(
        self,
        database: OutboxDatabase,
        bounds: Bounds | None = None,
        *,
        default_topic: str = DEFAULT_TOPIC,
        derived: Collection[str] = (),
    ) -> None:
        self.database = database
        self.bounds: Bounds = bounds or Bounds()
        self._default_topic = default_topic
        self._derived = frozenset(derived)

    def append(
        self, event: WorkflowEvent, route: Route = DEFAULT_ROUTE, *, environment_is_default: bool = False
    ) -> int:
        """Accept an event: from here on it is delivered at least once, or visibly parked.

        An event that is in the outbox already, under the same id for the same route, is accepted again; where
        its data differ that is a warning, as they are not kept.

        Args:
            event: the event.
            route: where to. Default: the default connection and its topic.
            environment_is_default: whether the connection's environment, if it has one, replaces the event's.

        Returns:
            How many older events were dropped to make room; 0 unless the outbox is full and told to.

        Raises:
            OutboxFullError: the outbox has reached its bound.
            OutboxUnavailableError: its database cannot be used.
            EventSerializationError: the event was changed into something JSON cannot carry.
        """
        payload = to_json(event)
        conn_id, topic = route
        row = {
            "id": _column(event.event_id),
            "aggregatetype": topic or self._default_topic,
            "aggregateid": _column(event.ordering_key),
            "type": _column(str(event.event_type)),
            "payload": payload.decode(),
            "topic": topic or "",
            "conn_id": conn_id or "",
            "environment_is_default": int(environment_is_default),
            "size_bytes": len(payload),
            "created_at": time.time(),
            "max_rows": self.bounds.max_rows,
            "max_bytes": self.bounds.max_bytes,
        }
        if self.database.execute(statements.APPEND, row) > 0:
            return 0
        with self.database.connect() as connection:
            found = connection.execute(statements.IS_IN, row).first()
        if found is not None:
            self._compare(event, payload, found[0])
            return 0
        if self.bounds.when_full == "refuse":
            raise self._full()
        with self.database.transaction() as connection:
            dropped = connection.execute(statements.DROP_OLDEST, {"count": _DROPPED_AT_ONCE}).rowcount
            if connection.execute(statements.APPEND, row).rowcount == 0:
                raise self._full()
        return int(dropped)

    def _compare(self, event: WorkflowEvent, payload: bytes, kept: str) -> None:
        """Warn if an event under the same id says something else than the one that is kept."""
        try:
            new, old = (json.loads(text)["payload"]["data"] for text in (payload, kept))
            names = (new.keys() | old.keys()) - self._derived
            differ = sorted(name for name in names if new.get(name) != old.get(name))
        except (ValueError, TypeError, KeyError, AttributeError):  # somebody wrote into the table
            return
        if differ:
            log.warning(
                "event %s (%s of %s) is in the outbox already with other data (%s), and these are not kept: "
                "if they are two events, give each its own event_type, or an event_id where you build it",
                printable(event.event_id),
                printable(event.event_type),
                printable(event.ordering_key),
                printable(", ".join(differ), 200),
            )

    def routes(self) -> list[Route]:
        """Return the routes on which something waits."""
        with self.database.connect() as connection:
            return _routes(connection)

    def claim(
        self, route: Route, owner: str, *, lease_seconds: float, count: int, key: str | None = None
    ) -> list[OutboxEntry]:
        """Lease the oldest entries of a route that may be attempted now, in order.

        Entries behind one that is leased by another relay or backs off, under the same key, are left alone. A
        lease that runs out, because its relay died, makes its entries claimable again.

        Args:
            route: the route.
            owner: who claims.
            lease_seconds: for how long, in seconds.
            count: at most how many.
            key: only entries with this ordering key. Default: any.

        Raises:
            OutboxUnavailableError: the database cannot be used.
        """
        with self.database.transaction() as connection:
            now = self._now(connection)
            found = connection.execute(
                statements.CLAIM_ANY if key is None else statements.CLAIM_KEY,
                {**_of(route), "now": now, "count": count} | ({} if key is None else {"key": _column(key)}),
            ).all()
            if found:
                connection.execute(
                    statements.LEASE,
                    {"seqs": [row[0] for row in found], "owner": owner, "until": now + lease_seconds},
                )
        return [OutboxEntry(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) for row in found]

    def settle(
        self,
        owner: str,
        *,
        delivered: Iterable[int] = (),
        parked: Sequence[tuple[int, str]] = (),
        retried: Sequence[tuple[int, str | None, float]] = (),
    ) -> None:
        """Write down what became of claimed entries, all at once.

        Args:
            owner: who claimed them.
            delivered: the places of those the broker confirmed; they are removed.
            parked: places and reasons of those that can never be delivered.
            retried: place, reason and seconds until the next attempt. Without a reason it was no attempt.

        Raises:
            OutboxUnavailableError: the database cannot be used; the leases run out by themselves.
        """
        with self.database.transaction() as connection:
            now = self._now(connection)
            if gone := list(delivered):
                connection.execute(statements.SETTLE, {"seqs": gone})
            if parked:
                connection.execute(
                    statements.PARK,
                    [
                        {"seq": seq, "owner": owner, "now": now, "error": _reason(reason)}
                        for seq, reason in parked
                    ],
                )
            if retried:
                connection.execute(
                    statements.RETRY,
                    [
                        {
                            "seq": seq,
                            "owner": owner,
                            "failed": int(reason is not None),
                            "at": now + seconds if seconds > 0 else 0,
                            "error": None if reason is None else _reason(reason),
                        }
                        for seq, reason, seconds in retried
                    ],
                )

    def expire(self, count: int = 1_000) -> int:
        """Park what has waited for longer than the bound, at most ``count`` a route; return how many."""
        age = self.bounds.max_age_seconds
        with self.database.transaction() as connection:
            now = self._now(connection)
            arguments = {"now": now, "before": now - age, "count": count, "error": f"waited over {age:g} s"}
            return sum(
                int(connection.execute(statements.EXPIRE, {**_of(route), **arguments}).rowcount)
                for route in _routes(connection)
            )

    def totals(self) -> Totals:
        """Return how much is in the outbox.

        Raises:
            OutboxUnavailableError: the database cannot be used.
        """
        with self.database.connect() as connection:
            rows, size_bytes, parked = connection.execute(statements.TOTALS).one()
            oldest = [
                created
                for route in _routes(connection)
                for created in connection.execute(statements.OLDEST, _of(route)).scalars()
            ]
            age = max(self._now(connection) - min(oldest), 0.0) if oldest else None
        return Totals(rows - parked, parked, size_bytes, age)

    def parked(self, count: int = 100) -> list[ParkedEntry]:
        """Return the parked entries, the oldest first."""
        with self.database.connect() as connection:
            rows = connection.execute(statements.PARKED, {"count": count}).all()
        return [
            ParkedEntry(row[0], row[1], row[2], row[3], Route(row[4] or None, row[5] or None), row[6], row[7])
            for row in rows
        ]

    def retry_parked(self, event_id: str | None = None) -> int:
        """Let parked entries be attempted again, all or those of one event; return how many."""
        return self._on_parked(statements.UNPARK, event_id)

    def discard_parked(self, event_id: str | None = None) -> int:
        """Remove parked entries, all or those of one event; return how many."""
        return self._on_parked(statements.DISCARD, event_id)

    def beat(self, owner: str, host: str, pid: int) -> None:
        """Say that a relay is at work; forget those that have not been for a day."""
        with self.database.connect() as connection:
            now = self._now(connection)
            connection.execute(statements.BEAT, {"owner": owner, "host": host, "pid": pid, "now": now})
            connection.execute(
                sa.text("DELETE FROM workflow_events_relays WHERE seen_at < :before"),
                {"before": now - _REMEMBERED_SECONDS},
            )

    def retire(self, owner: str) -> None:
        """Say that a relay is at work no more."""
        with self.database.connect() as connection:
            connection.execute(
                sa.text("DELETE FROM workflow_events_relays WHERE owner = :owner"), {"owner": owner}
            )

    def relays(self, within_seconds: float) -> list[str]:
        """Return the relays that were at work within so many seconds."""
        with self.database.connect() as connection:
            since = self._now(connection) - within_seconds
            found = connection.execute(
                sa.text("SELECT owner FROM workflow_events_relays WHERE seen_at >= :since ORDER BY owner"),
                {"since": since},
            )
            return [str(owner) for owner in found.scalars()]

    def _on_parked(self, statement: str, event_id: str | None) -> int:
        of_event = "" if event_id is None else " AND id = :id"
        with self.database.transaction() as connection:
            arguments = {} if event_id is None else {"id": event_id}
            return int(connection.execute(sa.text(statement + of_event), arguments).rowcount)

    def _now(self, connection: Connection) -> float:
        """The time by one clock: this host's for a file, the server's where hosts share one."""
        if self.database.kind == "sqlite":
            return time.time()
        found: Any = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar()
        return float(found)

    def _full(self) -> OutboxFullError:
        return OutboxFullError(
            f"the outbox at {self.database.place} has reached its bound of {self.bounds.max_rows:,} events "
            f"or {self.bounds.max_bytes:,} bytes: see why the relay does not deliver, or raise the bound"
        )


def _column(text: str) -> str:
    """Return a text as PostgreSQL takes it; the JSON, which is what is delivered, has the original."""
    return text.replace("\0", "\ufffd")


def _reason(text: str) -> str:
    return printable(text)[:_MAX_ERROR_CHARACTERS]


def _of(route: Route) -> dict[str, Any]:
    return {"conn_id": route.conn_id or "", "topic": route.topic or ""}


def _routes(connection: Connection) -> list[Route]:
    found: list[Route] = []
    row = connection.execute(statements.FIRST_ROUTE).first()
    while row is not None:
        found.append(Route(row[0] or None, row[1] or None))
        row = connection.execute(statements.NEXT_ROUTE, {"conn_id": row[0], "topic": row[1]}).first()
    return found
