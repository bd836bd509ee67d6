"""The notifier: in callbacks synchronously, in deadline alerts asynchronously."""

from __future__ import annotations

import asyncio  # noqa: TID253 - a test may be slow to import
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import TaskInstanceState

from airflow_workflow_events import ConfigurationError, EventType, WorkflowEvent
from airflow_workflow_events.metrics import FAILED as FAILED_METRIC
from airflow_workflow_events.metrics import PUBLISHED as PUBLISHED_METRIC
from airflow_workflow_events.notifications import WorkflowEventNotifier
from tests.airflow_names import AsyncCallback, DagSerialization
from tests.broker import Broker
from tests.unit.airflow_side.contexts import (
    DAG_ID,
    RUN_ID,
    dag_context,
    deadline_context,
    make_dag,
    make_run,
    minimal_context,
    task_context,
)
from tests.unit.airflow_side.lifecycle.test_translate import event_of
from tests.unit.airflow_side.test_callbacks import end_run, end_task

Counts = Counter[tuple[str, str]]
LogOf = Callable[[str], str]
Published = Callable[..., list[WorkflowEvent]]


def test_it_publishes_how_a_run_ended(connection: str, published: Published, counters: Counts) -> None:
    end_run(make_dag(on_success_callback=WorkflowEventNotifier()), "success", failed=False)

    (event,) = published()
    assert event.event_type == EventType.WORKFLOW_COMPLETED
    assert event.metadata.emitted_by == "notifier"
    assert counters == {(PUBLISHED_METRIC, "notifier"): 1}


def test_its_event_has_the_callbacks_id(connection: str, published: Published) -> None:
    WorkflowEventNotifier()(dag_context())

    assert published()[0].event_id == event_of(dag_context()).event_id


def test_it_publishes_what_became_of_a_task(connection: str, published: Published) -> None:
    notifier = WorkflowEventNotifier(data={"note": "{{ exception }}"})
    end_task("on_retry_callback", TaskInstanceState.UP_FOR_RETRY, [notifier], ValueError("no rows"))

    (event,) = published()
    assert event.event_type == EventType.TASK_RETRYING
    assert event.payload.data["note"] == "no rows"


def test_templates_are_rendered_in_every_field_and_at_any_depth(
    connection: str, published: Published, embedded_broker: Broker, event_topic: str
) -> None:
    embedded_broker.create_topic(f"{event_topic}.manual")
    WorkflowEventNotifier(
        event_type="{{ dag.dag_id }}.refreshed",
        data={"run": "{{ run_id }}", "files": [{"at": "{{ ds }}", "rows": 3}]},
        topic=f"{event_topic}.{{{{ dag_run.run_type.value }}}}",
        environment="env-{{ reason }}",
    )(dag_context())

    (event,) = published(1, f"{event_topic}.manual")
    assert event.event_type == f"{DAG_ID}.refreshed"
    assert event.metadata.environment == "env-success"
    assert event.payload.data["run"] == RUN_ID
    assert event.payload.data["files"] == [{"at": "2026-11-22", "rows": 3}]


def test_each_run_gets_values_of_its_own(connection: str, published: Published) -> None:
    # One notifier serves every run whose callbacks one process handles.
    notifier = WorkflowEventNotifier(data={"run": "{{ dag_run.run_id }}"})
    for run_id in ("first", "second"):
        notifier(dag_context(run=make_run(run_id=run_id)))

    events = published(2)
    assert {event.workflow_run_id: event.payload.data["run"] for event in events} == {
        "first": "first",
        "second": "second",
    }


def test_called_directly_it_renders_for_the_context_it_gets(connection: str, published: Published) -> None:
    notifier = WorkflowEventNotifier(data={"dag": "{{ dag.dag_id }}"})
    for dag_id in ("first", "second"):
        notifier.notify(dag_context(dag=make_dag(dag_id), run=make_run(dag_id=dag_id)))  # type: ignore[arg-type]

    assert {event.workflow_id: event.payload.data["dag"] for event in published(2)} == {
        "first": "first",
        "second": "second",
    }


def test_a_template_without_its_variable_costs_that_field_alone(
    connection: str, published: Published, log_of: LogOf
) -> None:
    notifier = WorkflowEventNotifier(
        event_type="{{ 'sales.refreshed' }}",
        data={"run": "{{ dag_run.run_id }}"},
        environment="{{ run_id }}",
    )
    notifier(minimal_context())
    notifier(dag_context())

    minimal, full = sorted(published(2), key=lambda event: "run" in event.payload.data)
    assert minimal.event_type == full.event_type == "sales.refreshed"
    assert "run" not in minimal.payload.data
    assert minimal.metadata.environment == RUN_ID
    assert full.payload.data["run"] == RUN_ID
    assert "WARNING data is left out of the event, its template failed: 'dag_run' is undefined" in log_of(
        "notifications"
    )


def test_a_field_rendered_to_nothing_is_the_default(connection: str, published: Published) -> None:
    nothing = "{{ params.get('nothing', '') }}"
    WorkflowEventNotifier(topic=nothing, event_type=nothing, environment=nothing)(dag_context())

    (event,) = published()
    assert event.event_type == EventType.WORKFLOW_COMPLETED
    assert event.metadata.environment == "test"


def test_a_field_that_a_dag_renders_to_a_number_is_text(connection: str, published: Published) -> None:
    dag = make_dag(render_template_as_native_obj=True)
    WorkflowEventNotifier(environment="{{ ds_nodash }}")(dag_context(dag=dag))

    assert published()[0].metadata.environment == "20261122"


def test_a_dag_whose_jinja_environment_cannot_be_made_costs_what_needs_it_alone(
    connection: str, published: Published, log_of: LogOf
) -> None:
    dag = make_dag(
        jinja_environment_kwargs={"extensions": ["not_installed.Extension"]},
        user_defined_macros={"shout": str.upper},
    )
    notifier = WorkflowEventNotifier(
        event_type="sales.refreshed", data={"id": "{{ shout(run_id) }}"}, environment="{{ run_id }}"
    )
    for context in (dag_context(dag=dag), minimal_context(dag=dag)):
        notifier(context)

    for event in published(2):
        assert event.event_type == "sales.refreshed"
        assert event.metadata.environment == RUN_ID
        assert "id" not in event.payload.data
    log = log_of("notifications")
    assert "WARNING templates do without the DAG's jinja environment, which failed: No module named" in log
    assert "WARNING data is left out of the event, its template failed: 'shout' is undefined" in log


def test_a_template_that_is_broken_costs_that_field_alone(connection: str, published: Published) -> None:
    WorkflowEventNotifier(data={"a": "{{ 1 / 0 }}"}, environment="{% if %}")(dag_context())

    (event,) = published()
    assert "a" not in event.payload.data
    assert event.metadata.environment == "test"


def test_a_context_is_left_as_it_was_for_other_callbacks(connection: str) -> None:
    context = dag_context()
    before = dict(context)
    WorkflowEventNotifier(data={"a": 1}, topic="sales", event_type="sales.refreshed")(context)

    assert context.keys() == before.keys()
    assert all(context[key] is before[key] for key in before)


def test_a_serialised_dag_as_under_dag_test_has_no_template_environment_and_needs_none(
    connection: str, published: Published
) -> None:
    dag = make_dag()
    context = dag_context(dag=dag)
    context["dag"] = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    WorkflowEventNotifier(data={"run": "{{ run_id }}", "dag": "{{ dag.dag_id }}"})(context)

    (event,) = published()
    assert (event.payload.data["run"], event.payload.data["dag"]) == (RUN_ID, DAG_ID)


def test_a_dags_own_template_settings_are_kept(connection: str, published: Published) -> None:
    dag = make_dag(user_defined_macros={"shout": str.upper}, render_template_as_native_obj=True)
    WorkflowEventNotifier(data={"id": "{{ shout(dag.dag_id) }}", "rows": "{{ 40 + 2 }}"})(
        dag_context(dag=dag)
    )

    (event,) = published()
    assert event.payload.data["id"] == DAG_ID.upper()
    assert event.payload.data["rows"] == 42


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"topic": "{{ 'not legal' }}"}, "'not legal' is not a legal Kafka topic name"),
        ({"conn_id": "nowhere"}, "AirflowNotFoundException"),
        ({"event_type": "{{ 'not legal' }}"}, "event_type"),
    ],
)
def test_what_is_wrong_only_at_run_time_fails_nothing_and_is_logged_and_counted(
    connection: str, counters: Counts, log_of: LogOf, options: dict[str, Any], reason: str
) -> None:
    WorkflowEventNotifier(**options)(dag_context())

    assert reason in log_of("notifications") + log_of("publisher")
    assert counters == {(FAILED_METRIC, "notifier"): 1}


def test_the_log_of_what_could_not_be_built_names_the_dag_and_the_run(connection: str, log_of: LogOf) -> None:
    WorkflowEventNotifier(topic="{{ 'not legal' }}")(dag_context())

    assert (
        f"ERROR an event of {DAG_ID}/{RUN_ID} was not published by the notifier: "
        "ConfigurationError: topic 'not legal'"
    ) in log_of("notifications")


@pytest.mark.parametrize("context", [None, 7, {}], ids=str)
def test_a_context_that_is_none_of_airflows_raises_nothing(counters: Counts, context: Any) -> None:
    WorkflowEventNotifier(event_type="{{ dag.dag_id }}").notify(context)

    assert counters == {(FAILED_METRIC, "notifier"): 1}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"data": {"state": 1}}, "state"), ({"timeout_seconds": 0}, "timeout_seconds is 0")],
)
def test_a_mistake_is_an_error_where_the_dag_is_parsed(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        WorkflowEventNotifier(**options)


def test_airflow_takes_it_for_a_deadlines_callback() -> None:
    callback = AsyncCallback(WorkflowEventNotifier, kwargs={"data": {"escalate_to": "data-platform"}})

    assert callback.path == f"{WorkflowEventNotifier.__module__}.WorkflowEventNotifier"


async def test_awaited_in_a_triggerer_it_publishes_the_missed_deadline(
    connection: str, published: Published, counters: Counts
) -> None:
    # Airflow's triggerer gives the context to __init__ and awaits the notifier.
    await WorkflowEventNotifier(
        data={"escalate_to": "data-platform", "run": "{{ dag_run.dag_run_id }}"},
        context=deadline_context(),  # type: ignore[arg-type]
    )

    (event,) = await asyncio.to_thread(published)
    assert event.event_type == EventType.WORKFLOW_DEADLINE_MISSED
    assert event.event_id == event_of(deadline_context()).event_id
    assert (event.workflow_id, event.workflow_run_id) == (DAG_ID, RUN_ID)
    assert event.payload.data["escalate_to"] == "data-platform"
    assert event.payload.data["run"] == RUN_ID
    assert event.metadata.emitted_by == "notifier"
    assert counters == {(PUBLISHED_METRIC, "notifier"): 1}


async def test_awaited_it_does_not_block_the_event_loop(vault_that_hangs: threading.Event) -> None:
    notifier = WorkflowEventNotifier(timeout_seconds=1.5, context=deadline_context())  # type: ignore[arg-type]
    waits: list[float] = []

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            waits.append(time.monotonic() - before)

    async def notify() -> None:
        await notifier

    heart = asyncio.create_task(beat())
    await notify()
    heart.cancel()
    assert vault_that_hangs.wait(30)
    assert len(waits) > 100
    assert max(waits) < 1


async def test_awaited_it_leaves_out_a_field_whose_variable_is_not_there(
    connection: str, published: Published
) -> None:
    await WorkflowEventNotifier(
        topic="{{ dag_run.topic }}",
        data={"note": "run {{ nothing }}"},
        context=deadline_context(),  # type: ignore[arg-type]
    )

    (event,) = await asyncio.to_thread(published)
    assert "note" not in event.payload.data


async def test_awaited_it_raises_nothing(counters: Counts) -> None:
    await WorkflowEventNotifier(conn_id="nowhere", context=deadline_context())  # type: ignore[arg-type]
    await WorkflowEventNotifier(topic="{{ 'not legal' }}", context={})

    assert counters == {(FAILED_METRIC, "notifier"): 2}


def test_a_task_and_a_dag_may_share_one(connection: str, published: Published) -> None:
    notifier = WorkflowEventNotifier(data={"about": "{{ ti.task_id }}"})
    notifier(task_context(TaskInstanceState.SUCCESS))
    notifier(dag_context())

    assert {event.event_type for event in published(2)} == {"task.completed", "workflow.completed"}


@pytest.mark.parametrize("data", [[1], "rows", 42])
def test_data_without_names_is_refused_where_the_dag_is_parsed(data: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"data is a {type(data).__name__}: use a mapping of names"):
        WorkflowEventNotifier(data=data)
