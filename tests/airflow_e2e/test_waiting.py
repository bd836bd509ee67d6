"""Sensors and asset watchers in real Airflow processes find their events, and fail for those they should."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from airflow_workflow_events import WorkflowEvent, WorkflowEventMetadata
from airflow_workflow_events.events import DEFAULT_TOPIC
from tests.airflow_e2e.deployment import Airflow
from tests.airflow_e2e.services import WORKFLOW_ID, order_service
from tests.broker import event_of
from tests.docs.web import serving
from tests.events import make_event
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("airflow")]

_KINDS = "waiting_of_all_kinds"
_SERVICE = "example_wait_for_a_services_event"
_FAN_IN = "example_wait_for_three_workflows"
_STARTED = "example_start_when_another_completes"
_AWAITED = (
    "example_publish_with_callbacks",
    "example_publish_with_operator",
    "example_notify_of_missed_deadline",
)
_REPORT_SECONDS = 120


@dataclass(frozen=True)
class Waited:
    """The run of all kinds of sensors, at its end, and the events that it waited for."""

    airflow: Airflow
    run_id: str
    events: dict[str, WorkflowEvent]
    tasks: dict[tuple[str, int], dict[str, Any]]

    def state(self, task_id: str, map_index: int = -1) -> str:
        return str(self.tasks[task_id, map_index]["state"])

    def result(self, task_id: str, map_index: int = -1) -> Any:
        """The event that a sensor has returned."""
        assert self.state(task_id, map_index) == "success"
        return self.airflow.result(_KINDS, self.run_id, task_id, map_index)

    def log(self, task_id: str) -> str:
        return self.airflow.task_log(_KINDS, self.run_id, task_id)


@pytest.fixture(scope="module")
def waited(airflow: Airflow) -> Waited:
    """All kinds of sensors at once: each start of a task takes its time."""
    run_id, topic = f"test__{uuid.uuid4()}", f"waiting-{uuid.uuid4()}"
    airflow.broker.create_topic(topic)

    def event(workflow_id: str, **fields: Any) -> WorkflowEvent:
        return make_event(**{"workflow_id": workflow_id, "workflow_run_id": run_id} | fields)

    def order(country: str, rows: int, **fields: Any) -> WorkflowEvent:
        return event(
            "of_a_template",
            **{
                "event_type": "orders.loaded",
                "source": "shop",
                "metadata": WorkflowEventMetadata(environment="prod"),
                "payload": {"data": {"order": {"country": country}, "rows": rows}},
            }
            | fields,
        )

    events = {
        "before": event("came_before"),
        "completed": event("completes"),
        "shard": event("shard_7"),
        "one": event("one_of_two"),
        "failed": event(
            "fails",
            event_type="workflow.failed",
            payload={"data": {"error": {"type": "DiskFull", "message": "no space left for 3 rows"}}},
        ),
        "order": order("DE", 100),
    }
    nearly = [
        order("FR", 100),
        order("DE", 99),
        order("DE", 100, event_type="orders.deleted"),
        order("DE", 100, source="airflow"),
        order("DE", 100, metadata=WorkflowEventMetadata(environment="test")),
        order("DE", 100, workflow_run_id="another"),
    ]
    airflow.publish(events["before"])
    since = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    airflow.publish(*nearly, topic=topic)
    conf = {
        "workflow": "of_a_template",
        "kind": "orders.loaded",
        "source": "shop",
        "environment": "prod",
        "country": "DE",
        "since": since.isoformat(),
        "topic": topic,
        "connection": "workflow_events_default",
    }
    airflow.deployment.trigger(_KINDS, run_id, conf=conf)
    deferred = ("fails_at_once", "fails_softly", "ends_in_the_triggerer", "is_mapped", "is_templated")
    poking = {"pokes": "running", "fails_poking": "running", "reschedules": "up_for_reschedule"}
    airflow.await_states(_KINDS, run_id, dict.fromkeys(deferred, "deferred"))
    airflow.await_states(_KINDS, run_id, poking)
    airflow.publish(*(events[name] for name in ("completed", "shard", "one", "failed")))
    airflow.publish(events["order"], topic=topic)
    assert airflow.deployment.await_run(_KINDS, run_id) == "failed", "some of its tasks fail"
    tasks = {(one["task_id"], one["map_index"]): one for one in airflow.tasks(_KINDS, run_id)}
    return Waited(airflow, run_id, events, tasks)


def test_an_event_that_came_before_the_sensor_is_found(waited: Waited) -> None:
    assert WorkflowEvent.model_validate(waited.result("looks_back")) == waited.events["before"]


def test_an_event_from_before_since_is_not_found_and_the_timeout_is_a_sensors(waited: Waited) -> None:
    assert waited.state("does_not_look_back") == "failed"
    assert "AirflowSensorTimeout" in waited.log("does_not_look_back")


def test_a_timeout_skips_the_task_that_is_to_fail_softly(waited: Waited) -> None:
    assert waited.state("times_out_softly") == "skipped"


@pytest.mark.parametrize("task_id", ["fails_at_once", "fails_poking"])
def test_the_failure_of_what_is_waited_for_fails_the_task_at_once_with_its_error(
    waited: Waited, task_id: str
) -> None:
    assert waited.state(task_id) == "failed"
    assert waited.tasks[task_id, -1]["try_number"] == 1, "although it may be tried four times"
    log = waited.log(task_id)
    failed = waited.events["failed"]
    assert (
        f"workflow.failed of fails, run {waited.run_id} (event {failed.event_id}): "
        "DiskFull: no space left for 3 rows"
    ) in log
    assert "AirflowFailException" in log


def test_a_failure_skips_the_task_that_is_to_fail_softly(waited: Waited) -> None:
    assert waited.state("fails_softly") == "skipped"


@pytest.mark.parametrize("task_id", ["pokes", "reschedules"])
def test_a_sensor_that_is_not_deferrable_finds_the_event_by_poking(waited: Waited, task_id: str) -> None:
    assert waited.result(task_id)["event_id"] == waited.events["completed"].event_id
    assert waited.tasks[task_id, -1]["trigger"] is None


def test_a_sensor_may_end_without_being_started_again(waited: Waited) -> None:
    found = waited.result("ends_in_the_triggerer")
    assert isinstance(found, str), "Airflow makes JSON text of what a trigger pushes: say so no more"
    assert WorkflowEvent.model_validate_json(found) == waited.events["completed"]
    assert "has come" not in waited.log("ends_in_the_triggerer"), "which a task that is started again says"
    assert "has come" in waited.log("looks_back")


def test_each_instance_of_a_mapped_sensor_finds_an_event_of_its_own(waited: Waited) -> None:
    found = [waited.result("is_mapped", map_index)["event_id"] for map_index in range(3)]
    assert found == [waited.events[name].event_id for name in ("completed", "shard", "one")]


def test_templates_are_rendered_and_what_matches_nearly_is_passed_over(waited: Waited) -> None:
    assert waited.result("is_templated")["event_id"] == waited.events["order"].event_id
    # Airflow 3.1 leaves them out of its list of tasks.
    path = f"/dags/{_KINDS}/dagRuns/{waited.run_id}/taskInstances/is_templated"
    shown = waited.airflow.deployment.get(path)["rendered_fields"]
    assert shown["workflow_id"] == ["of_a_template"]
    assert shown["data"] == {"order.country": "DE", "rows": {"$gte": 100}}


@pytest.fixture(scope="module")
def service(airflow: Airflow) -> Iterator[str]:
    """The URL of a service that publishes to the same topic."""
    with serving(order_service(airflow.broker.bootstrap_servers)) as url:
        yield url


def post(url: str, **parameters: Any) -> str:
    """Have the service publish an event and return its id."""
    answer = httpx.post(url, params=parameters, timeout=60).raise_for_status().json()
    assert answer["published"] is True
    return str(answer["event_id"])


def test_a_task_waits_for_the_event_of_a_fastapi_service(airflow: Airflow, service: str) -> None:
    run_id = f"test__{uuid.uuid4()}"
    airflow.deployment.trigger(_SERVICE, run_id)
    airflow.await_states(_SERVICE, run_id, {"wait_for_import": "deferred"})
    post(f"{service}/imports/{run_id}", rows=0)
    post(f"{service}/imports/of_another_run", rows=9)
    event_id = post(f"{service}/imports/{run_id}", rows=42)

    assert airflow.deployment.await_run(_SERVICE, run_id) == "success"

    found = airflow.result(_SERVICE, run_id, "wait_for_import")
    assert (found["event_id"], found["source"]) == (event_id, "fastapi")
    counted = [event for event in airflow.events(run_id, 3) if event.event_type == "orders.counted"]
    assert [event.payload.data for event in counted] == [{"rows": "42"}]


def test_the_failure_that_a_service_reports_fails_the_task(airflow: Airflow, service: str) -> None:
    run_id = f"test__{uuid.uuid4()}"
    airflow.deployment.trigger(_SERVICE, run_id)
    airflow.await_states(_SERVICE, run_id, {"wait_for_import": "deferred"})
    post(f"{service}/imports/{run_id}/failure", reason="the file is cut short")

    assert airflow.deployment.await_run(_SERVICE, run_id) == "failed"

    assert f"workflow.failed of {WORKFLOW_ID}, run {run_id}" in airflow.task_log(
        _SERVICE, run_id, "wait_for_import"
    )
    assert "ImportError: the file is cut short" in airflow.task_log(_SERVICE, run_id, "wait_for_import")


def test_fan_in_goes_on_when_three_workflows_have_completed_and_an_asset_starts_a_dag(
    airflow: Airflow,
) -> None:
    """One run of the three serves both examples."""
    run_id = f"test__{uuid.uuid4()}"
    airflow.deployment.trigger(_FAN_IN, run_id)
    for dag_id in _AWAITED:
        airflow.deployment.trigger(dag_id, run_id)

    assert airflow.deployment.await_run(_FAN_IN, run_id) == "success"

    found = [airflow.result(_FAN_IN, run_id, "wait_for_workflow", index) for index in range(3)]
    assert [event["workflow_id"] for event in found] == list(_AWAITED)
    # The second says in a type of its own that it is done, before its run ends.
    assert [(event["workflow_run_id"], event["event_type"]) for event in found] == [
        (run_id, "orders.ready" if dag_id == "example_publish_with_operator" else "workflow.completed")
        for dag_id in _AWAITED
    ]
    events = airflow.events(run_id, 1)
    [joined] = [event for event in events if event.event_type == "regions.all_completed"]
    assert joined.workflow_id == _FAN_IN

    report = await_condition(
        lambda: report_about(airflow, run_id), timeout_seconds=_REPORT_SECONDS, what="the report"
    )
    assert report is not None
    started = airflow.deployment.get(f"/dags/{_STARTED}/dagRuns/{report.workflow_run_id}")
    assert started["run_type"] == "asset_triggered"
    assert {"workflow_id": _AWAITED[0], "workflow_run_id": run_id} in airflow.result(
        _STARTED, report.workflow_run_id, "read_what_started_it"
    )
    path = f"/dags/{_STARTED}/dagRuns/{report.workflow_run_id}/upstreamAssetEvents"
    payloads = [one["extra"]["payload"] for one in airflow.deployment.get(path)["asset_events"]]
    assert found[0] in payloads, "the event is stored whole, as the sensor has it"


def report_about(airflow: Airflow, run_id: str) -> WorkflowEvent | None:
    """What the DAG that a completion starts has published of a run, in this Airflow and in no other."""
    runs = {run["dag_run_id"] for run in airflow.deployment.get(f"/dags/{_STARTED}/dagRuns")["dag_runs"]}
    for event in map(event_of, airflow.broker.messages(DEFAULT_TOPIC, 0)):
        if (
            event.event_type == "report.written"
            and event.workflow_run_id in runs
            and any(one["workflow_run_id"] == run_id for one in event.payload.data["started_by"])
        ):
            return event
    return None
