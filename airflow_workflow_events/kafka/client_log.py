"""librdkafka's own log, without its floods: while brokers are away it says so several times a second."""

from __future__ import annotations

import logging
import re
from time import monotonic

_PAUSE_SECONDS = 60.0
MAX_KINDS = 1_000
"""How many kinds of message to keep apart."""
# Names of clients, ports and durations: two messages that differ in these alone are of one kind.
_NUMBER = re.compile(r"\d+")


def kind_of(text: str) -> str:
    """Return what a message has in common with the others of its kind."""
    return _NUMBER.sub("#", text)


class OncePerMinute(logging.Filter):
    """Passes the first message of each kind, then one a minute that counts the others; all for debugging."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, tuple[float, int]] = {}  # when the next one passes, and how many did not

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a message."""
        if record.levelno <= logging.DEBUG:
            return True
        text = record.getMessage()
        kind = kind_of(text)
        now = monotonic()
        again_at, withheld = self._kinds.get(kind, (0.0, 0))
        if now < again_at:
            self._kinds[kind] = again_at, withheld + 1
            return False
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now + _PAUSE_SECONDS, 0
        if withheld:
            record.msg, record.args = f"{text} ({withheld} more like this since the last one)", ()
        return True


CLIENT_LOG = logging.getLogger("airflow_workflow_events.librdkafka")
"""The logger that every client of librdkafka gets."""
CLIENT_LOG.addFilter(OncePerMinute())
