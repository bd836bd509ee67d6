"""The destinations that a relay has open: one for each connection, and another for each route in trouble."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.port import Destination, OpenDestination, Renewable

log: logging.Logger = logging.getLogger("airflow_workflow_events.outbox.relay")

# A changed connection is noticed at the first event after so long.
_RENEWAL_SECONDS = 30.0
# A producer keeps what it was told: one that is older, or has delivered, may answer from memory.
_FRESH_SECONDS = 2.0

_Key = tuple[str | None, Route | None]


@dataclass(slots=True, eq=False)
class _Open:
    destination: Destination
    opened_at: float = field(default_factory=monotonic)
    checked_at: float = field(default_factory=monotonic)
    users: int = 0
    used: bool = False
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Lent:
    """A destination for the time of one delivery.

    Attributes:
        destination: what delivers.
        is_fresh: whether a refusal by it is the broker's answer of now, and not remembered.
    """

    destination: Destination
    is_fresh: bool
    _open: _Open


class Destinations:
    """Opens destinations, shares them between threads, replaces them; no lock is held while one is opened.

    The routes of a connection share one. A route in trouble gets one of its own, because giving up what is
    under way to a partition without a leader gives up everything else of the same producer as well.

    Args:
        open_destination: makes one, by connection.
    """

    def __init__(self, open_destination: OpenDestination) -> None:
        self._open_destination = open_destination
        self._lock = threading.Lock()
        self._kept: dict[_Key, _Open] = {}
        self._lent: set[_Open] = set()

    def prepare(self, conn_id: str | None) -> None:
        """Open the destination of a connection, unless it is; raises as ``open_destination`` does."""
        self._opened((conn_id, None))

    def has(self, conn_id: str | None) -> bool:
        """Return whether the destination of a connection is open."""
        return (conn_id, None) in self._kept

    @contextmanager
    def lend(self, route: Route, *, apart: bool) -> Iterator[Lent]:
        """Lend the destination of a route, opening it if need be; raises as ``open_destination`` does.

        Args:
            route: where to.
            apart: whether to lend one that no other route uses.
        """
        key = (route.conn_id, route if apart else None)
        kept = self._opened(key)
        if self._is_outdated(kept):
            log.info("connection %s was changed: its producer is replaced", route.conn_id or "default")
            self._forget(key, kept)
            kept = self._opened(key)
        with self._lock:
            is_fresh = not kept.used and monotonic() - kept.opened_at < _FRESH_SECONDS
            kept.used = True
            kept.users += 1
            self._lent.add(kept)
        try:
            yield Lent(kept.destination, is_fresh, kept)
        finally:
            with self._lock:
                kept.users -= 1
                unused = kept.given_up and not kept.users
                if not kept.users:
                    self._lent.discard(kept)
            if unused:
                _close(kept.destination)

    def give_up(self, lent: Lent) -> None:
        """Lend this one to nobody any more; it is closed once nobody uses it."""
        with self._lock:
            keys = [key for key, kept in self._kept.items() if kept is lent._open]  # noqa: SLF001 - ours
        for key in keys:
            self._forget(key, lent._open)  # noqa: SLF001 - ours

    def rejoin(self, route: Route) -> None:
        """Close what was open for this route alone."""
        key = (route.conn_id, route)
        if (kept := self._kept.get(key)) is not None:
            self._forget(key, kept)

    def look_again(self) -> None:
        """Have each connection looked up again before its next delivery."""
        with self._lock:
            for kept in self._kept.values():
                kept.checked_at = float("-inf")

    def abandon(self) -> None:
        """Give up what is under way, from another thread."""
        with self._lock:
            kept = {*self._kept.values(), *self._lent}
        for one in kept:
            one.destination.abandon()

    def close(self) -> None:
        """Close all that nobody uses, and the others as they are given back."""
        for key, kept in list(self._kept.items()):
            self._forget(key, kept)

    def _opened(self, key: _Key) -> _Open:
        if (kept := self._kept.get(key)) is not None:
            return kept
        opened = _Open(self._open_destination(key[0]))
        with self._lock:
            kept = self._kept.setdefault(key, opened)
        if kept is not opened:  # another thread was quicker
            _close(opened.destination)
        return kept

    def _is_outdated(self, kept: _Open) -> bool:
        now = monotonic()
        if now - kept.checked_at < _RENEWAL_SECONDS or not isinstance(kept.destination, Renewable):
            return False
        kept.checked_at = now
        try:
            return kept.destination.is_outdated()
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything; what works is kept
            log.info("a connection could not be looked up again, what was known is used: %s", error)
            return False

    def _forget(self, key: _Key, kept: _Open) -> None:
        with self._lock:
            if self._kept.get(key) is kept:
                del self._kept[key]
            close = not kept.given_up and not kept.users
            kept.given_up = True
        if close:
            _close(kept.destination)


def _close(destination: Destination) -> None:
    try:
        destination.close()
    except Exception as error:  # noqa: BLE001 - it is given up in any case
        log.warning("closing a producer failed: %s", error)


def connection_words(conn_id: str | None) -> str:
    """Return what a connection is called in the log."""
    return f"connection {conn_id or 'default'}"


def route_words(route: Route, destination: Destination | None = None) -> str:
    """Return what a route is called in the log, with the connection's own topic where it is known."""
    topic = route.topic or getattr(destination, "topic", None) or "default"
    return f"{connection_words(route.conn_id)}, topic {topic}"
