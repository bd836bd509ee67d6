"""Sensors that find, fail, are skipped and time out; a run's ``conf`` says what the templates are to be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_workflow_events.sensors import WorkflowEventSensor

_LONG = 240
# Long enough for the trigger to have read the topic from where the sensor began.
_SHORT = 15

with DAG("waiting_of_all_kinds", schedule=None):
    of_this_run: dict[str, Any] = {"workflow_run_id": "{{ run_id }}", "timeout": _LONG}

    # Of what came before the run began: one looks back, one does not.
    WorkflowEventSensor(
        task_id="looks_back", workflow_id="came_before", since=timedelta(hours=1), **of_this_run
    )
    WorkflowEventSensor(
        task_id="does_not_look_back",
        workflow_id="came_before",
        workflow_run_id="{{ run_id }}",
        timeout=_SHORT,
    )
    WorkflowEventSensor(
        task_id="times_out_softly",
        workflow_id="never_comes",
        workflow_run_id="{{ run_id }}",
        timeout=_SHORT,
        soft_fail=True,
    )

    failing: dict[str, Any] = {
        **of_this_run,
        "fail_on": ["workflow.failed", "workflow.timed_out"],
        "retries": 3,
    }
    WorkflowEventSensor(task_id="fails_at_once", workflow_id="fails", **failing)
    WorkflowEventSensor(task_id="fails_softly", workflow_id="fails", soft_fail=True, **failing)

    poking: dict[str, Any] = {"deferrable": False, "poke_interval": 2}
    WorkflowEventSensor(task_id="fails_poking", workflow_id="fails", **poking, **failing)
    WorkflowEventSensor(task_id="pokes", workflow_id="completes", **poking, **of_this_run)
    # Airflow fails a task that is started again before its scheduler has heard that the worker before has
    # ended (apache/airflow#72716), and workers say so five seconds late: looks have to lie further apart.
    seldom: dict[str, Any] = {"deferrable": False, "poke_interval": 12}
    WorkflowEventSensor(
        task_id="reschedules", workflow_id="completes", mode="reschedule", **seldom, **of_this_run
    )
    WorkflowEventSensor(
        task_id="ends_in_the_triggerer", workflow_id="completes", end_from_trigger=True, **of_this_run
    )
    WorkflowEventSensor.partial(task_id="is_mapped", **of_this_run).expand(
        workflow_id=["completes", "shard_*", ["no_such_workflow", "one_of_two"]]
    )
    WorkflowEventSensor(
        task_id="is_templated",
        workflow_id=["{{ dag_run.conf['workflow'] }}"],
        workflow_run_id="{{ run_id }}",
        event_type="{{ dag_run.conf['kind'] }}",
        source="{{ dag_run.conf['source'] }}",
        environment="{{ dag_run.conf['environment'] }}",
        data={"order.country": "{{ dag_run.conf['country'] }}", "rows": {"$gte": 100}},
        fail_on=["{{ dag_run.conf['kind'] }}.failed"],
        since="{{ dag_run.conf['since'] }}",
        topic="{{ dag_run.conf['topic'] }}",
        workflow_events_conn_id="{{ dag_run.conf['connection'] }}",
        timeout=_LONG,
    )
