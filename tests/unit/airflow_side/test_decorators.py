"""``@task.workflow_event``: what the function returns becomes the event's payload."""

from __future__ import annotations

import asyncio  # noqa: TID253 - a test may be slow to import
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.sdk import DAG, task
from pydantic import BaseModel, ValidationError

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.decorators import workflow_event_task
from tests.airflow_names import DagSerialization
from tests.unit.airflow_side.contexts import DAG_ID, RUN_ID
from tests.unit.airflow_side.running import run_task

Published = Callable[..., list[WorkflowEvent]]


class RegionReport(BaseModel):
    region: str
    rows: int


@dataclass
class Totals:
    rows: int


def task_returning(result: Any, **options: Any) -> Any:
    """A decorated task that returns ``result``, in a DAG."""
    decorator: Any = task.workflow_event
    with DAG(DAG_ID, schedule=None):

        @decorator(**{"event_type": "region.loaded", **options})  # type: ignore[untyped-decorator]
        def load() -> Any:
            return result

        return load().operator


@pytest.mark.parametrize(
    ("result", "data"),
    [
        ({"rows": 3, "at": {"a": [1]}}, {"rows": 3, "at": {"a": [1]}}),
        (RegionReport(region="eu", rows=3), {"region": "eu", "rows": 3}),
        (Totals(rows=3), {"rows": 3}),
        ({}, {}),
        (None, {}),
    ],
    ids=["mapping", "model", "dataclass", "empty", "nothing"],
)
def test_what_the_function_returns_is_the_payload(
    connection: str, published: Published, result: Any, data: dict[str, Any]
) -> None:
    report = run_task(task_returning(result))

    (event,) = published()
    assert event.payload.data == data
    assert event.event_type == "region.loaded"
    assert event.metadata.emitted_by == "operator"
    assert report["event_id"] == event.event_id
    assert set(report) == {"event_id", "topic", "partition", "offset"}


def test_an_async_function_is_awaited(connection: str, published: Published) -> None:
    with DAG(DAG_ID, schedule=None):

        @task.workflow_event(event_type="region.loaded")
        async def load(run: str) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"run": run}

        operator = load("{{ run_id }}").operator  # type: ignore[attr-defined]
    run_task(operator)

    assert published()[0].payload.data == {"run": RUN_ID}


def test_what_the_function_returns_is_data_and_no_template(connection: str, published: Published) -> None:
    text = "{{ run_id }} {% for x in y %}"
    run_task(task_returning({"text": text, "more": [text]}))

    (event,) = published()
    assert event.payload.data == {"text": text, "more": [text]}


def test_the_functions_arguments_and_the_operators_fields_are_templates(
    connection: str, published: Published
) -> None:
    with DAG(DAG_ID, schedule=None):

        @task.workflow_event(event_type="region.{{ 'loaded' }}", environment="env-{{ dag.dag_id }}")
        def load(run: str, *, ds: str | None = None, ti: Any = None) -> dict[str, Any]:
            return {"run": run, "ds": ds, "task": ti.task_id}

        operator = load("{{ run_id }}").operator  # type: ignore[attr-defined]
    run_task(operator)

    (event,) = published()
    assert event.payload.data == {"run": RUN_ID, "ds": "2026-11-22", "task": "load"}
    assert event.event_type == "region.loaded"
    assert event.metadata.environment == f"env-{DAG_ID}"


def test_mapped_it_publishes_an_event_for_each_input(connection: str, published: Published) -> None:
    with DAG(DAG_ID, schedule=None) as dag:

        @task.workflow_event(event_type="region.loaded")
        def load(region: str) -> dict[str, Any]:
            return {"region": region}

        mapped = load.expand(region=["eu", "us"]).operator  # type: ignore[attr-defined]
    reports = [run_task(mapped, map_index=map_index) for map_index in range(2)]

    assert sorted(event.payload.data["region"] for event in published(2)) == ["eu", "us"]
    assert len({report["event_id"] for report in reports}) == 2
    serialised = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(serialised)
    assert DagSerialization.from_dict(serialised).task_ids == ["load"]


@pytest.mark.parametrize("result", [("a", 1), [1], "text", 7, {1, 2}], ids=lambda value: type(value).__name__)
def test_a_result_that_is_no_object_fails_the_task_naming_the_payload(connection: str, result: Any) -> None:
    with pytest.raises(ValidationError, match=r"payload\.data"):
        run_task(task_returning(result))


def test_a_result_that_json_cannot_carry_fails_the_task_naming_the_place(connection: str) -> None:
    with pytest.raises(ValidationError, match=r"payload\.data\.raw\[0\]"):
        run_task(task_returning({"raw": [b"bytes"]}))


def test_what_the_function_raises_fails_the_task_and_publishes_nothing(
    connection: str, published: Published
) -> None:
    with DAG(DAG_ID, schedule=None):

        @task.workflow_event(event_type="region.loaded")
        def load() -> dict[str, Any]:
            raise LookupError("no such region")

        operator = load().operator  # type: ignore[attr-defined]

    with pytest.raises(LookupError, match="no such region"):
        run_task(operator)
    assert published(0) == []


def test_data_is_refused_where_the_dag_is_parsed() -> None:
    with pytest.raises(TypeError, match="what the function returns is the data"):
        task_returning({}, data={"rows": 3})


def test_data_is_refused_in_a_mapped_task_as_well() -> None:
    decorator: Any = task.workflow_event

    with DAG(DAG_ID, schedule=None), pytest.raises(TypeError, match="what the function returns is the data"):
        decorator(event_type="region.loaded", data={"rows": 3})(dict).expand(region=["eu"])


def test_a_result_stays_one_xcom_even_where_the_function_says_it_returns_a_dict() -> None:
    def load() -> dict[str, Any]:
        return {}

    with DAG(DAG_ID, schedule=None):
        made: Any = workflow_event_task(load, event_type="a")
        named: Any = task.workflow_event(event_type="b", multiple_outputs=True)(load)
        for operator in (made().operator, named().operator):
            assert operator.multiple_outputs is False


def test_the_decorator_is_found_by_the_name_it_is_registered_under() -> None:
    operator = task_returning({})

    assert operator.custom_operator_name == "@task.workflow_event"
    assert operator.task_id == "load"
