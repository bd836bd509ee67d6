"""Which executors run tasks where no relay is at work."""

from __future__ import annotations

import re

# LocalExecutor's tasks share the relay of the scheduler's host; a Celery worker has a relay of its own.
_RELAYED = frozenset({"LocalExecutor", "SequentialExecutor", "CeleryExecutor"})


def advice_on_outbox(executors: str, outbox_url: str | None) -> str | None:
    """Say what to change where events of tasks would stay in a file that nothing relays from.

    Args:
        executors: ``[core] executor``: names or classes, also several, with aliases and teams.
        outbox_url: where the outbox is; ``None`` for no outbox.

    Returns:
        The advice, or ``None`` where none is needed.
    """
    if outbox_url is None or not outbox_url.startswith("sqlite"):
        return None
    names = {part.rpartition(".")[2] for part in re.split(r"[,;:=\s]+", executors)}
    others = sorted(name for name in names if name.endswith("Executor") and name not in _RELAYED)
    if not others:
        return None
    return (
        f"events of tasks run by {', '.join(others)} stay in an SQLite outbox where the task ran, and in a "
        "pod are lost with it, unless the task delivers them as it ends: set [workflow_events] outbox_url to "
        "a postgresql:// database that all hosts share, or run `airflow workflow-events relay` on each host"
    )
