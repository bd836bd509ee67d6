"""A DAG that runs in the test's process publishes to the kit's broker: operator, callbacks, listener."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parents[3] / "dags_example"

CONFTEST = """
import os, tempfile
os.environ.update(
    AIRFLOW_HOME=tempfile.mkdtemp(dir=os.getcwd()),
    AIRFLOW__CORE__DAGS_FOLDER=os.path.join(os.getcwd(), "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    # A deployment of somebody's own, which tests must not reach.
    AIRFLOW__WORKFLOW_EVENTS__CONN_ID="production",
    AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL="sqlite:////nowhere/outbox.db",
)
import pytest

@pytest.fixture(scope="session", autouse=True)
def dags():
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag
    from airflow.utils.db import initdb
    initdb()
    return DagBag().dags
"""

WAITING = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_workflow_events.sensors import WorkflowEventSensor

for name, options in {
    "deferred": {},
    "ended_from_trigger": {"end_from_trigger": True},
    "poking": {"deferrable": False},
    "rescheduled": {"deferrable": False, "mode": "reschedule"},
}.items():
    with DAG(name, schedule=None):
        WorkflowEventSensor(task_id="wait", workflow_id=f"orders_{name}", since=timedelta(hours=1), **options)
"""

TESTS = """
import pytest, threading
from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.testing import make_event

def types(events):
    return [event.event_type for event in events]

def run(dags, name):
    return dags[f"example_publish_with_{name}"].test()

def relays():
    return [thread for thread in threading.enumerate() if thread.name == "workflow-events-relay"]

FROM_CALLBACKS = ["task.started", "task.completed", "workflow.completed", "sales.refreshed"]

def test_callbacks(dags, published_events):
    dag_run = run(dags, "callbacks")
    assert types(published_events) == FROM_CALLBACKS
    assert {event.workflow_run_id for event in published_events} == {dag_run.run_id}
    assert {event.metadata.emitted_by for event in published_events} == {"callback"}

def test_the_operator(dags, published_events):
    run(dags, "operator")
    assert types(published_events) == ["orders.loaded", "orders.ready"]

@pytest.mark.parametrize("name", ["deferred", "ended_from_trigger", "poking", "rescheduled"])
def test_a_sensor(dags, workflow_events_broker, workflow_events_connections, name):
    event = make_event(workflow_id=f"orders_{name}")
    with WorkflowEventProducer(workflow_events_broker.bootstrap_servers) as producer:
        assert producer.publish_event(event)
    dag_run = dags[name].test()
    assert dag_run.state == "success"
    assert dag_run.get_task_instance("wait").xcom_pull("wait")["event_id"] == event.event_id

def test_the_hook(workflow_events_connections, published_events):
    from airflow_workflow_events.hooks import WorkflowEventHook
    workflow_events_connections.add("kafka_eu", topic="orders")
    with WorkflowEventHook("kafka_eu").get_producer() as producer:
        assert producer.publish_event(make_event())
    assert published_events == []
    assert len(published_events.on("orders")) == 1

def test_the_listener(dags, published_events, workflow_events_listener):
    dag_run = run(dags, "operator")
    tasks = published_events.wait_for(count=6, event_type="task.*")
    assert sorted(types(tasks)) == ["task.completed"] * 3 + ["task.started"] * 3
    [done] = published_events.wait_for(event_type="workflow.completed", data={"state": "success"})
    assert (done.metadata.emitted_by, done.workflow_run_id) == ("listener", dag_run.run_id)
    assert relays()

def test_the_listener_of_an_earlier_test_is_gone(dags, published_events):
    assert not relays()
    run(dags, "callbacks")
    assert types(published_events) == FROM_CALLBACKS
    assert not relays()

def test_the_listener_again(dags, published_events, workflow_events_listener):
    run(dags, "callbacks")
    assert published_events.wait_for(event_type="workflow.completed")
    assert {event.metadata.emitted_by for event in published_events} == {"callback", "listener"}
"""


def test_a_dag_under_test_publishes_to_the_broker(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "PYTEST_ADDOPTS"))]:
        monkeypatch.delenv(name)
    pytester.makeini("[pytest]\naddopts = -p no:randomly\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    dags = shutil.copytree(EXAMPLES, pytester.path / "dags")
    (dags / "waiting.py").write_text(WAITING)

    result = pytester.runpytest_subprocess("--durations=0", timeout=240)

    result.assert_outcomes(passed=10)
