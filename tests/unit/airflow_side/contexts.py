"""What Airflow 3.3 hands to callbacks, notifiers and operators, built from Airflow's own classes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, BaseOperator, DagRunState, TaskInstanceState
from airflow.sdk.api.datamodels._generated import DagRun, DagRunType, TaskInstance, TIRunContext
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

DAG_ID = "daily_sales"
RUN_ID = "manual__2026-11-22T00:00:00+00:00"
LOGICAL_DATE = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
STARTED_AT = dt.datetime(2026, 11, 23, 2, 44, 30, 250_000, tzinfo=dt.UTC)
ENDED_AT = dt.datetime(2026, 11, 23, 2, 44, 35, 750_000, tzinfo=dt.UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def make_dag(dag_id: str = DAG_ID, **options: Any) -> DAG:
    """A DAG of two tasks, ``extract`` and ``load``."""
    dag = DAG(dag_id, schedule=None, **{"tags": ["sales", "daily"], **options})
    BaseOperator(task_id="extract", owner="data-platform", dag=dag)
    BaseOperator(task_id="load", owner="data-platform", retries=2, dag=dag)
    return dag


def make_run(**fields: Any) -> DagRun:
    """A manual run that has ended well."""
    return DagRun(
        **{
            "dag_id": DAG_ID,
            "run_id": RUN_ID,
            "logical_date": LOGICAL_DATE,
            "data_interval_start": LOGICAL_DATE - dt.timedelta(days=1),
            "data_interval_end": LOGICAL_DATE,
            "run_after": LOGICAL_DATE,
            "start_date": STARTED_AT,
            "end_date": ENDED_AT,
            "clear_number": 0,
            "run_type": DagRunType.MANUAL,
            "state": DagRunState.SUCCESS,
            "conf": {},
            "triggering_user_name": "alice",
            "consumed_asset_events": [],
            **(
                {"partition_key": None} if "partition_key" in DagRun.model_fields else {}
            ),  # since Airflow 3.2
            **fields,
        }
    )


def minimal_context(reason: str | None = "success", dag: DAG | None = None) -> dict[str, Any]:
    """A DAG callback's context of a run without a task to speak of."""
    return {"dag": dag or make_dag(), "run_id": RUN_ID, "reason": reason}


def dag_context(
    reason: str | None = "success", run: DagRun | None = None, dag: DAG | None = None, task_id: str = "load"
) -> dict[str, Any]:
    """A DAG callback's context, made as ``airflow.dag_processing.processor`` makes it."""
    dag = dag or make_dag()
    task: Any = dag.get_task(task_id)
    last_ti = TaskInstance(**_ti_fields(task, {}))
    ti = RuntimeTaskInstance.model_construct(
        **last_ti.model_dump(exclude_unset=True),
        task=task,
        _ti_context_from_server=TIRunContext.model_construct(dag_run=run or make_run(), max_tries=2),
    )
    context = dict(ti.get_template_context())
    context["reason"] = reason
    return context


def task_context(
    state: Any = TaskInstanceState.SUCCESS,
    *,
    exception: BaseException | str | None = None,
    run: DagRun | None = None,
    task: Any = None,
    end_date: dt.datetime | None = ENDED_AT,
    **ti: Any,
) -> dict[str, Any]:
    """A task callback's context, as a task's process has it; the run is still going on."""
    task = task or make_dag().get_task("load")
    run = run or make_run(state=DagRunState.RUNNING, end_date=None)
    runtime_ti = RuntimeTaskInstance.model_construct(
        **_ti_fields(task, ti),
        task=task,
        max_tries=2,
        start_date=STARTED_AT,
        end_date=end_date,
        state=state,
        _ti_context_from_server=TIRunContext.model_construct(dag_run=run, max_tries=2),
    )
    context = dict(runtime_ti.get_template_context())
    if exception is not None:
        context["exception"] = exception
    return context


def deadline_context(**run: Any) -> dict[str, Any]:
    """What a deadline alert's callback gets: strings, and a run whose id is called ``dag_run_id``."""
    return {
        "dag_run": {
            "dag_id": DAG_ID,
            "dag_run_id": RUN_ID,
            "run_type": "manual",
            "state": "running",
            "logical_date": "2026-11-22T00:00:00Z",
            "start_date": "2026-11-23T02:44:30.250000Z",
            "end_date": None,
            "queued_at": "2026-11-23T02:44:29Z",
            "triggered_by": "rest_api",
            "clear_number": 0,
            "conf": {},
            **run,
        },
        "deadline": {
            "id": "0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c11",
            "deadline_time": "2026-11-23T02:45:00+00:00",
        },
    }


def _ti_fields(task: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": uuid.UUID("0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c10"),
        "task_id": task.task_id,
        "dag_id": task.dag_id,
        "run_id": RUN_ID,
        "try_number": 1,
        "map_index": -1,
        "dag_version_id": uuid.UUID("0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c12"),
        "context_carrier": {"traceparent": TRACEPARENT},
        **fields,
    }
