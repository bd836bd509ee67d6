"""What keeps a relay from delivering, by route and by connection: how long it waits, and what it says."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from time import monotonic

from airflow_workflow_events.outbox.entries import Route

log: logging.Logger = logging.getLogger("airflow_workflow_events.outbox.relay")

_FIRST_BACKOFF_SECONDS = 0.5
#: A route or connection that takes no events is tried again after at most so long.
LONGEST_BACKOFF_SECONDS = 30.0
#: A refused login is tried again after at most so long: once corrected, nobody should have to wait.
REFUSED_BACKOFF_SECONDS = 15.0
# An outage is a warning again after so long, for whoever looks at the last few minutes of a log.
_WARN_AGAIN_SECONDS = 300.0
_TAKES_NO_EVENTS = "%s takes no events, next attempt in %.1f s: %s"


def backoff_seconds(failures: int, longest: float = LONGEST_BACKOFF_SECONDS) -> float:
    """Return how long to wait after so many failures, with jitter so that many relays come back apart."""
    seconds: float = min(_FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16), longest)
    return seconds * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class _Trouble:
    failures: int = 0
    until: float = 0.0
    warn_at: float = 0.0
    told: bool = False


class Troubles:
    """Keeps what is wrong with a relay's routes and connections; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_routes: dict[Route, _Trouble] = {}
        self._of_connections: dict[str | None, _Trouble] = {}
        self._warn_of_some_at: dict[Route, float] = {}

    def failures(self, route: Route) -> int:
        """Return how often in a row a route has failed by itself."""
        trouble = self._of_routes.get(route)
        return 0 if trouble is None else trouble.failures

    def has(self, route: Route) -> bool:
        """Return whether the last attempt at a route failed."""
        return route in self._of_routes or route.conn_id in self._of_connections

    def is_known(self, route: Route) -> bool:
        """Return whether the last attempt at a route failed for a reason of its own, not its connection's."""
        return route in self._of_routes

    def hold_back(self, route: Route) -> bool:
        """Return whether it is too early for another attempt."""
        now = monotonic()
        found = (self._of_routes.get(route), self._of_connections.get(route.conn_id))
        return any(trouble is not None and now < trouble.until for trouble in found)

    def fail(self, route: Route, name: str, reason: str, *, quietly: bool = False) -> None:
        """Back off from a route, whose ``name`` is for the log; ``quietly`` without a word."""
        with self._lock:
            trouble = self._of_routes.setdefault(route, _Trouble())
            seconds, level = self._failed(trouble, LONGEST_BACKOFF_SECONDS, quietly)
        log.log(level, _TAKES_NO_EVENTS, name, seconds, reason)

    def fail_connection(
        self, conn_id: str | None, name: str, reason: str, *, longest: float, quietly: bool = False
    ) -> None:
        """Back off from all routes of a connection that cannot be made or whose login is refused."""
        with self._lock:
            trouble = self._of_connections.setdefault(conn_id, _Trouble())
            seconds, level = self._failed(trouble, longest, quietly)
        log.log(level, _TAKES_NO_EVENTS, name, seconds, reason)

    def note_refused(self, route: Route, *, told: bool) -> None:
        """Remember that a permission is missing, and whether the log says so, without backing off."""
        with self._lock:
            trouble = self._of_routes.setdefault(route, _Trouble())
            trouble.told |= told

    def warn_of_slow(self, route: Route, name: str, seconds: float, reason: str | None) -> None:
        """Say that a first attempt is still without an answer, unless something was said of the route."""
        with self._lock:
            trouble = self._of_routes.setdefault(route, _Trouble())
            if trouble.told:
                return
            trouble.told = True
            trouble.warn_at = monotonic() + _WARN_AGAIN_SECONDS
        log.warning("%s has confirmed nothing for %.1f s: %s", name, seconds, reason or "no broker answers")

    def warn_of_some(self, route: Route, name: str, count: int, reason: str) -> None:
        """Say that some events of a route failed while others were delivered, again only after minutes."""
        now = monotonic()
        with self._lock:
            is_new = now >= self._warn_of_some_at.get(route, now)
            if is_new:
                self._warn_of_some_at[route] = now + _WARN_AGAIN_SECONDS
        log.log(
            logging.WARNING if is_new else logging.INFO,
            "%s took some events, and %d failed and are attempted again: %s",
            name,
            count,
            reason,
        )

    def end(self, route: Route, name: str) -> None:
        """Say that a route takes events again, where it was said that it does not."""
        if not self.has(route):
            return
        with self._lock:
            found = (self._of_routes.pop(route, None), self._of_connections.pop(route.conn_id, None))
        if any(trouble is not None and trouble.told for trouble in found):
            log.info("%s takes events again", name)

    def try_now(self) -> None:
        """Let everything be attempted at once."""
        with self._lock:
            for trouble in (*self._of_routes.values(), *self._of_connections.values()):
                trouble.until = 0.0

    @staticmethod
    def _failed(trouble: _Trouble, longest: float, quietly: bool) -> tuple[float, int]:
        now = monotonic()
        trouble.failures += 1
        seconds = backoff_seconds(trouble.failures, longest)
        trouble.until = now + seconds
        if quietly:
            return seconds, logging.DEBUG
        level = logging.INFO
        if now >= trouble.warn_at:
            trouble.warn_at = now + _WARN_AGAIN_SECONDS
            level = logging.WARNING
        trouble.told = True
        return seconds, level
