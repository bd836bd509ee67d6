"""Callbacks for DAGs and tasks, called as Airflow calls them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from airflow.callbacks.callback_requests import DagCallbackRequest, DagRunContext
from airflow.dag_processing.processor import _execute_dag_callbacks
from airflow.sdk import DAG, BaseOperator, DagRunState, TaskInstanceState
from airflow.sdk.api.datamodels._generated import TaskInstance
from airflow.sdk.execution_time.task_runner import _run_task_state_change_callbacks

from airflow_workflow_events import ConfigurationError, EventType, WorkflowEvent
from airflow_workflow_events.callbacks import publish_on_failure, publish_on_success, workflow_event_callback
from tests.airflow_names import DagSerialization
from tests.unit.airflow_side.contexts import DAG_ID, RUN_ID, make_dag, make_run, task_context

Published = Callable[..., list[WorkflowEvent]]
LOG: Any = structlog.get_logger("tests")


def end_run(dag: DAG, reason: str, *, failed: bool, minimal: bool = False) -> None:
    """Call a DAG's callbacks with the code of Airflow's DAG processor."""
    last_ti = TaskInstance(
        id="0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c10",
        task_id="load",
        dag_id=DAG_ID,
        run_id=RUN_ID,
        try_number=1,
        dag_version_id="0193a2c4-1f5e-7c3a-8d1b-2f0a4f6b9c12",
    )
    run = make_run(state=DagRunState.FAILED if failed else DagRunState.SUCCESS)
    request = DagCallbackRequest(
        filepath="dag.py",
        bundle_name="dags",
        bundle_version=None,
        dag_id=DAG_ID,
        run_id=RUN_ID,
        is_failure_callback=failed,
        msg=reason,
        context_from_server=None if minimal else DagRunContext(dag_run=run, last_ti=last_ti),
    )
    _execute_dag_callbacks(SimpleNamespace(dags={DAG_ID: dag}), request, LOG)  # type: ignore[arg-type]


def end_task(kind: Any, state: TaskInstanceState, callbacks: Any, exception: Exception | None = None) -> None:
    """Call a task's callbacks with the code of Airflow's task runner."""
    task = BaseOperator(task_id="load", dag=DAG(DAG_ID, schedule=None), **{kind: callbacks})
    context = task_context(state, task=task, exception=exception)
    _run_task_state_change_callbacks(task, kind, context, LOG)  # type: ignore[arg-type]


@pytest.mark.parametrize("minimal", [False, True], ids=["full context", "minimal context"])
def test_a_dags_callbacks_publish_how_its_run_ended(
    connection: str, published: Published, minimal: bool
) -> None:
    dag = make_dag(on_success_callback=publish_on_success, on_failure_callback=publish_on_failure)
    end_run(dag, "success", failed=False, minimal=minimal)
    end_run(dag, "task_failure", failed=True, minimal=minimal)

    completed, failed = published(2)
    assert completed.event_type == EventType.WORKFLOW_COMPLETED
    assert failed.event_type == EventType.WORKFLOW_FAILED
    assert failed.payload.data["reason"] == "task_failure"
    assert completed.ordering_key == failed.ordering_key == f"{DAG_ID}/{RUN_ID}"


def test_callbacks_work_in_a_list_beside_one_that_raises(connection: str, published: Published) -> None:
    def raising(_context: Any) -> None:
        raise RuntimeError("another's callback")

    dag = make_dag(
        on_success_callback=[
            publish_on_success,
            raising,
            workflow_event_callback("sales.refreshed", data={"table": "sales"}),
        ]
    )
    end_run(dag, "success", failed=False)

    completed, refreshed = published(2)
    assert completed.event_type == EventType.WORKFLOW_COMPLETED
    assert (refreshed.event_type, refreshed.payload.data["table"]) == ("sales.refreshed", "sales")
    assert refreshed.event_id != completed.event_id


@pytest.mark.parametrize(
    ("kind", "state", "callback", "expected"),
    [
        ("on_success_callback", "success", publish_on_success, EventType.TASK_COMPLETED),
        ("on_failure_callback", "failed", publish_on_failure, EventType.TASK_FAILED),
        ("on_retry_callback", "up_for_retry", publish_on_failure, EventType.TASK_RETRYING),
        ("on_execute_callback", "running", workflow_event_callback(), EventType.TASK_STARTED),
        ("on_success_callback", "success", workflow_event_callback(), EventType.TASK_COMPLETED),
        ("on_failure_callback", "failed", workflow_event_callback(), EventType.TASK_FAILED),
        ("on_retry_callback", "up_for_retry", workflow_event_callback(), EventType.TASK_RETRYING),
        ("on_skipped_callback", "skipped", workflow_event_callback(), EventType.TASK_SKIPPED),
    ],
)
def test_a_tasks_callback_publishes_what_became_of_the_try(
    connection: str, published: Published, kind: str, state: str, callback: Any, expected: EventType
) -> None:
    failed = state in {"failed", "up_for_retry"}
    end_task(kind, TaskInstanceState(state), callback, ValueError("no rows") if failed else None)

    (event,) = published()
    assert event.event_type == expected
    assert event.payload.data["state"] == state
    assert event.payload.data["task"]["task_id"] == "load"
    assert (event.payload.data["error"] or {}).get("message") == ("no rows" if failed else None)


def test_a_tasks_callbacks_work_in_a_list(connection: str, published: Published) -> None:
    end_task(
        "on_failure_callback",
        TaskInstanceState.FAILED,
        [publish_on_failure, workflow_event_callback("sales.lost")],
        ValueError("no rows"),
    )

    assert [event.event_type for event in published(2)] == [EventType.TASK_FAILED, "sales.lost"]


def test_a_dag_with_callbacks_survives_airflows_serialisation() -> None:
    dag = make_dag(on_success_callback=[publish_on_success, workflow_event_callback()])
    serialised = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(serialised)

    assert DagSerialization.from_dict(serialised).has_on_success_callback


def test_an_event_type_may_be_one_of_the_enum(connection: str, published: Published) -> None:
    dag = make_dag(on_success_callback=workflow_event_callback(EventType.WORKFLOW_TRIGGERED))
    end_run(dag, "success", failed=False)

    assert published()[0].event_type == EventType.WORKFLOW_TRIGGERED


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"data": {"state": 1, "url": 2, "rows": 3}}, "state, url"),
        ({"event_type": "not legal"}, "event_type is 'not legal'"),
        ({"topic": "not legal"}, "'not legal' is not a legal Kafka topic name"),
        ({"topic": ""}, "is not a legal Kafka topic name"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0"),
    ],
)
def test_a_mistake_is_an_error_where_the_dag_is_parsed(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        workflow_event_callback(**options)


def test_a_callbacks_data_is_its_own_copy() -> None:
    data = {"rows": 1}
    callback = workflow_event_callback(data=data)
    data["rows"] = 2

    assert callback.publication.data == {"rows": 1}


@pytest.mark.parametrize("data", [[1], "rows", 42])
def test_data_without_names_is_refused_where_the_dag_is_parsed(data: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"data is a {type(data).__name__}: use a mapping of names"):
        workflow_event_callback(data=data)
