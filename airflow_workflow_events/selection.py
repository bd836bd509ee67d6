"""Which DAGs and tasks the listener publishes."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Selection:
    """What the listener publishes; globs as in file names.

    Args:
        dags_allow: DAG ids to publish; empty means all.
        dags_deny: DAG ids not to publish; wins over ``dags_allow``.
        tasks_allow: task ids to publish; empty means all.
        tasks_deny: task ids not to publish; wins over ``tasks_allow``.
        event_types: event types to publish; empty means all.
        task_topic: topic of task events. Default: the connection's.
    """

    dags_allow: tuple[str, ...] = ()
    dags_deny: tuple[str, ...] = ()
    tasks_allow: tuple[str, ...] = ()
    tasks_deny: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()
    task_topic: str | None = None

    def wants(self, event_type: str, dag_id: str, task_id: str | None) -> bool:
        """Whether an event of this type, DAG and task is published."""
        return (
            (not self.event_types or any(fnmatchcase(event_type, glob) for glob in self.event_types))
            and _passes(dag_id, self.dags_allow, self.dags_deny)
            and (task_id is None or _passes(task_id, self.tasks_allow, self.tasks_deny))
        )


def _passes(name: str, allow: tuple[str, ...], deny: tuple[str, ...]) -> bool:
    if any(fnmatchcase(name, glob) for glob in deny):
        return False
    return not allow or any(fnmatchcase(name, glob) for glob in allow)
