"""The address of a run or a task in Airflow's UI."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from airflow.sdk import DAG, BaseOperator

from tests.unit.airflow_side.contexts import dag_context, make_dag, minimal_context, task_context
from tests.unit.airflow_side.lifecycle.test_translate import event_of

SetOptions = Callable[..., None]

RUN_PATH = "/dags/daily_sales/runs/manual__2026-11-22T00%3A00%3A00%2B00%3A00"


def test_without_a_base_url_there_is_no_address(set_options: SetOptions) -> None:
    set_options("api", base_url="")

    assert event_of(dag_context()).payload.data["url"] is None


@pytest.mark.parametrize("base", ["https://airflow.example", "https://airflow.example/"])
def test_a_runs_address_has_its_run_id_quoted(set_options: SetOptions, base: str) -> None:
    set_options("api", base_url=base)

    assert event_of(dag_context()).payload.data["url"] == f"https://airflow.example{RUN_PATH}"
    assert event_of(minimal_context()).payload.data["url"] == f"https://airflow.example{RUN_PATH}"


def test_a_base_path_stays(set_options: SetOptions) -> None:
    set_options("api", base_url="http://host:8080/team/airflow/")

    assert event_of(dag_context()).payload.data["url"] == f"http://host:8080/team/airflow{RUN_PATH}"


def test_a_login_in_the_base_url_is_left_out(set_options: SetOptions) -> None:
    set_options("api", base_url="https://admin:p@ss@airflow.example:8443")

    assert event_of(dag_context()).payload.data["url"] == f"https://airflow.example:8443{RUN_PATH}"


@pytest.mark.parametrize(
    ("map_index", "path"), [(-1, "/tasks/load"), (0, "/tasks/load/mapped/0"), (7, "/tasks/load/mapped/7")]
)
def test_a_tasks_address_has_its_map_index_if_it_is_mapped(
    set_options: SetOptions, map_index: int, path: str
) -> None:
    set_options("api", base_url="https://airflow.example")

    url = event_of(task_context(map_index=map_index)).payload.data["url"]
    assert url == f"https://airflow.example{RUN_PATH}{path}"


def test_a_task_in_a_group_keeps_its_dots_and_an_odd_dag_id_is_quoted(set_options: SetOptions) -> None:
    set_options("api", base_url="https://airflow.example")
    dag: DAG = make_dag("größe.täglich")
    task = BaseOperator(task_id="group.load", dag=dag)
    context = task_context(task=task)
    context["dag_run"] = context["dag_run"].model_copy(update={"dag_id": dag.dag_id, "run_id": "a/b c?#%"})

    assert event_of(context).payload.data["url"] == (
        "https://airflow.example/dags/gr%C3%B6%C3%9Fe.t%C3%A4glich/runs/a%2Fb%20c%3F%23%25/tasks/group.load"
    )


@pytest.mark.parametrize("base", ["https://[not-an-address", "https://host:port-is-no-number"])
def test_a_broken_base_url_costs_the_address_and_not_the_event(set_options: SetOptions, base: str) -> None:
    set_options("api", base_url=base)

    event_of(dag_context())
