"""Puts the sensors of a run into the state in which deferring leaves them, without starting a thousand tasks.

As a program in the environment of an Airflow, ``python -m benchmarks.deferring defer NAME COUNT RUN_ID`` does
what a worker and the API server do when a task is deferred. ``withdraw`` has the same sensors wait no more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from airflow._shared.timezones import timezone
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.sdk.exceptions import TaskDeferred
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import delete, select, update

from benchmarks import sensors


def defer(name: str, count: int, run_id: str) -> None:
    """Defer every sensor of a run that was made and that no scheduler has seen."""
    dag_id = sensors.dag_id(name, count)
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        run.state, run.start_date = DagRunState.RUNNING, timezone.utcnow()
        of_run = select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        tasks = {task.map_index: task for task in session.scalars(of_run)}
        if tasks.keys() != set(range(count)):
            raise SystemExit(f"{len(tasks)} task instances of {run_id} instead of {count}")
        for number, deferred in enumerate(_deferrals(name, count, run)):
            trigger = Trigger.from_object(deferred.trigger)
            session.add(trigger)
            session.flush()
            task = tasks[number]
            task.state = TaskInstanceState.DEFERRED
            task.start_date = timezone.utcnow()
            task.try_number = 1
            task.trigger_id = trigger.id
            task.next_method = deferred.method_name
            task.next_kwargs = deferred.kwargs or {}
            task.trigger_timeout = timezone.utcnow() + deferred.timeout


def withdraw(name: str, count: int, run_id: str) -> None:
    """End a run's waiting."""
    mine = (TaskInstance.dag_id == sensors.dag_id(name, count), TaskInstance.run_id == run_id)
    with create_session() as session:
        waiting = list(session.scalars(select(TaskInstance.trigger_id).where(*mine)))
        session.execute(
            update(TaskInstance).where(*mine).values(state=TaskInstanceState.SKIPPED, trigger_id=None)
        )
        session.execute(delete(Trigger).where(Trigger.id.in_(waiting)))


def _deferrals(name: str, count: int, run: DagRun) -> Iterator[TaskDeferred]:
    """Execute each sensor, as a worker does, up to where it asks to be deferred."""
    topic = sensors.topic_of(run.dag_id)
    contender = sensors.contender(name, topic, run.run_id)
    for number in range(count):
        sensor = contender.sensor(
            task_id=f"{sensors.TASK_ID}_{number}",
            timeout=sensors.TIMEOUT_SECONDS,
            **contender.common,
            **contender.own(number),
        )
        try:
            # Not through the decorator that wants a task runner around it.
            type(sensor).execute.__wrapped__(sensor, {"dag_run": run})
        except TaskDeferred as deferred:
            yield deferred
        else:
            raise SystemExit(f"{name} was not deferred")


def main() -> None:
    what, name, count, run_id = sys.argv[1:]
    {"defer": defer, "withdraw": withdraw}[what](name, int(count), run_id)


if __name__ == "__main__":
    main()
