"""Running a task as Airflow's task runner does, without a scheduler around it."""

from __future__ import annotations

import contextvars
from typing import Any, cast

from airflow.sdk import BaseOperator, Context, TaskInstanceState
from airflow.sdk.api.datamodels._generated import DagRun
from airflow.sdk.bases.operator import ExecutorSafeguard

from tests.unit.airflow_side.contexts import task_context


def run_task(task: Any, run: DagRun | None = None, **ti: Any) -> Any:
    """Render a task's templates and execute it; returns what it returned.

    Args:
        task: an operator, mapped or not, in a DAG.
        run: its run. Default: one that is going on.
        **ti: fields of the task instance, e.g. ``try_number`` or ``map_index``.
    """
    context = task_context(TaskInstanceState.RUNNING, task=task, run=run, end_date=None, **ti)
    context["ti"].render_templates(context)
    rendered: BaseOperator = context["ti"].task
    in_task = contextvars.copy_context()
    in_task.run(ExecutorSafeguard.tracker.set, rendered)
    return in_task.run(rendered.execute, cast("Context", context))
