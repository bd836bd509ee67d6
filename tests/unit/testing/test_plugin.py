"""pytest finds the fixtures by itself, they cost nothing unasked, and each test sees its own events alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import airflow_workflow_events.testing

pytest_plugins = ["pytester"]

PUBLISHING = """
import pytest
from airflow_workflow_events import WorkflowEventProducer
from airflow_workflow_events.testing import make_event

@pytest.fixture
def producer(workflow_events_broker):
    with WorkflowEventProducer(workflow_events_broker.bootstrap_servers) as producer:
        yield producer
"""

HEAVY = ("airflow", "asyncio", "confluent_kafka", "pydantic", "sqlalchemy")
LOADED = f"sorted({set(HEAVY)} & sys.modules.keys())"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory to run pytest in, by ``runpytest_subprocess``, with warnings as errors."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:randomly -W error\n")
    return pytester


def test_the_plugin_is_registered_under_its_name() -> None:
    (found,) = entry_points(group="pytest11", name="workflow_events")

    assert found.value == "airflow_workflow_events.testing.pytest_plugin"


def test_importing_the_plugin_loads_nothing_but_pytest() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import airflow_workflow_events.testing.pytest_plugin\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    package = "airflow_workflow_events"
    assert ast.literal_eval(done.stdout) == [
        package,
        f"{package}.lazy_names",
        f"{package}.testing",
        f"{package}.testing.pytest_plugin",
    ]


def test_a_run_that_does_not_use_the_plugin_loads_neither_airflow_nor_kafka_nor_pydantic(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other plugins of this environment load some of these themselves.
    run.makepyfile(
        f"import sys\n"
        f"def test_nothing_was_loaded(request):\n"
        f"    assert request.config.pluginmanager.has_plugin('workflow_events')\n"
        f"    assert {LOADED} == []\n"
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    run.makeini("[pytest]\n")

    result = run.runpytest_subprocess("-p", "workflow_events")

    result.assert_outcomes(passed=1)


def test_the_kit_works_without_airflow(run: pytest.Pytester) -> None:
    run.makeconftest(
        "import sys\n"
        "class NoAirflow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'airflow':\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, NoAirflow())\n"
    )
    run.makepyfile(
        PUBLISHING
        + "\ndef test_publishing(producer, published_events):\n"
        + "    event = make_event()\n"
        + "    assert producer.publish_event(event)\n"
        + "    assert published_events == [event]\n"
    )

    run.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "pytest-xdist"])
def test_each_test_sees_its_own_events_alone(run: pytest.Pytester, options: list[str]) -> None:
    run.makepyfile(
        PUBLISHING
        + """
@pytest.fixture
def earlier(workflow_events_connections, producer):
    event = make_event(data={"published": "by a fixture"})
    assert producer.publish_event(event)
    return event

@pytest.mark.parametrize("number", range(8))
def test_publishing(producer, published_events, number):
    events = [make_event(data={"number": number, "part": part}) for part in range(number)]
    for event in events:
        assert producer.publish_event(event)
    assert producer.publish_event(make_event(data={"number": number}), topic="orders")
    assert published_events == events
    assert [event.payload.data for event in published_events.on("orders")] == [{"number": number}]

def test_publishing_nothing(published_events):
    assert published_events == []

def test_what_a_fixture_published_belongs_to_the_test(earlier, published_events):
    assert published_events == [earlier]
"""
    )

    run.runpytest_subprocess(*options).assert_outcomes(passed=10)


def test_the_environment_is_changed_for_the_tests_that_ask(run: pytest.Pytester) -> None:
    run.makepyfile(
        """
import json, os

def changed():
    return sorted(name for name in os.environ if name.startswith("AIRFLOW_") and "WORKFLOW_EVENTS" in name)

def test_before(workflow_events_broker):
    assert changed() == []

def test_meanwhile(published_events, workflow_events_broker, workflow_events_connections):
    connection = json.loads(os.environ["AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT"])
    assert connection["conn_type"] == "workflow_events"
    assert connection["extra"] == {"bootstrap.servers": workflow_events_broker.bootstrap_servers}
    assert os.environ["AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL"] == ""
    assert workflow_events_connections.add("kafka_eu", topic="orders") == "kafka_eu"
    assert json.loads(os.environ["AIRFLOW_CONN_KAFKA_EU"])["extra"]["topic"] == "orders"

def test_afterwards(workflow_events_broker):
    assert changed() == []
    assert "AIRFLOW_CONN_KAFKA_EU" not in os.environ
"""
    )

    run.runpytest_subprocess().assert_outcomes(passed=3)


def test_a_failing_assertion_shows_the_events(run: pytest.Pytester) -> None:
    run.makepyfile(
        PUBLISHING
        + """
def test_equality(producer, published_events):
    producer.publish_event(make_event())
    assert published_events == []

def test_awaiting(producer, published_events):
    producer.publish_event(make_event())
    published_events.wait_for(timeout=0, event_type="workflow.failed")
"""
    )

    result = run.runpytest_subprocess()

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*Left contains one more item: WorkflowEvent(event_id=*"])
    result.stdout.fnmatch_lines(
        [
            ">*published_events.wait_for(timeout=0, event_type=*",
            "E*AssertionError: 0 of 1 event(s) with event_type='workflow.failed' came to workflow-events *",
            "E*workflow.completed of daily_sales/manual__1, in test: {}",
        ]
    )
    result.stdout.no_fnmatch_line("*published.py*")


def test_a_broker_for_each_test_replaces_the_sessions(run: pytest.Pytester) -> None:
    run.makepyfile(
        PUBLISHING
        + """
from airflow_workflow_events.testing import EmbeddedBroker

@pytest.fixture
def workflow_events_broker():
    with EmbeddedBroker() as broker:
        yield broker

@pytest.mark.parametrize("number", range(2))
def test_publishing(producer, published_events, number):
    assert producer.publish_event(make_event())
    assert [message.offset() for message in published_events.messages()] == [0]
"""
    )

    run.runpytest_subprocess().assert_outcomes(passed=2)


def test_each_public_name_loads_and_another_is_an_attribute_error() -> None:
    kit = airflow_workflow_events.testing

    assert dir(kit) == kit.__all__ == sorted(kit.__all__)
    assert all(getattr(kit, name).__doc__ for name in kit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = kit.Nothing
