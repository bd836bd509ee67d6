"""What the package offers: its names, their documentation, its errors, and that its core needs no Airflow."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import airflow_workflow_events
from airflow_workflow_events import errors, events, kafka

PUBLIC_NAMES = {
    "AsyncWorkflowEventConsumer",
    "AsyncWorkflowEventProducer",
    "CloudEventsMode",
    "ConfigurationError",
    "ConsumerClosedError",
    "DeliveryReport",
    "EmbeddedBroker",
    "EventDecodeError",
    "EventSerializationError",
    "EventSource",
    "EventTooLargeError",
    "EventType",
    "EventValidationError",
    "KafkaError",
    "KafkaTimeoutError",
    "ProducerClosedError",
    "SeenInMemory",
    "SeenInSqlite",
    "WorkflowEvent",
    "WorkflowEventConsumer",
    "WorkflowEventMetadata",
    "WorkflowEventPayload",
    "WorkflowEventProducer",
    "WorkflowEventsError",
    "__version__",
}

#: One of each error; a class that is missing here fails a test below.
ERRORS: list[errors.WorkflowEventsError] = [
    errors.WorkflowEventsError("what"),
    errors.EventValidationError("payload.data.a[3]", "is bytes"),
    errors.EventSerializationError("what"),
    errors.EventTooLargeError("id-1", 2_000_000, 921_600),
    errors.EventDecodeError("what"),
    errors.ConfigurationError("what"),
    errors.ProducerClosedError("what"),
    errors.ConsumerClosedError("what"),
    errors.ReentrantCallError("what"),
    errors.OutboxError("what"),
    errors.OutboxUnavailableError("what"),
    errors.OutboxFullError("what"),
    errors.KafkaError("what", name="INVALID_RECORD", retriable=True),
    errors.KafkaConnectionError("what", retriable=False),
    errors.KafkaAuthenticationError("what", name="_AUTHENTICATION"),
    errors.KafkaAuthorizationError("what"),
    errors.KafkaQueueFullError("what"),
    errors.KafkaTimeoutError("what"),
]

RETRIABLE = {"KafkaConnectionError", "KafkaQueueFullError", "KafkaTimeoutError", "OutboxUnavailableError"}

WITHOUT_AIRFLOW = """
import sys

class NoAirflow:
    def find_spec(self, name, path=None, target=None):
        if name == "airflow" or name.startswith("airflow."):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoAirflow())
"""

MODULES = """
import importlib, pkgutil
import airflow_workflow_events
from airflow_workflow_events import events, kafka
for part in (events, kafka):
    for module in pkgutil.walk_packages(part.__path__, f"{part.__name__}."):
        importlib.import_module(module.name)
importlib.import_module("airflow_workflow_events.provider_info")
for name in airflow_workflow_events.__all__:
    getattr(airflow_workflow_events, name)
"""

PUBLISH = """
from airflow_workflow_events import *
event = WorkflowEvent(event_type="workflow.completed", source="airflow", workflow_id="w", workflow_run_id="r",
                      metadata=WorkflowEventMetadata(environment="test"))
with EmbeddedBroker() as broker, WorkflowEventProducer(broker.bootstrap_servers) as producer:
    assert producer.publish_event(event)
"""

LOADED = "\nprint(sorted(name for name in sys.modules if name.partition('.')[0] in {names}))\n"


def core_modules() -> Iterator[Any]:
    yield from (airflow_workflow_events, errors, events, kafka)
    for part in (events, kafka):
        for module in pkgutil.walk_packages(part.__path__, f"{part.__name__}."):
            yield importlib.import_module(module.name)


def documented_objects() -> Iterator[tuple[str, Any]]:
    """Public classes and functions of the core, and their public methods and properties."""
    for module in core_modules():
        for name, thing in vars(module).items():
            is_own = getattr(thing, "__module__", None) == module.__name__
            if (
                name.startswith("_")
                or not is_own
                or not (inspect.isclass(thing) or inspect.isfunction(thing))
            ):
                continue
            yield f"{module.__name__}.{name}", thing
            for member, value in vars(thing).items() if inspect.isclass(thing) else ():
                function = value.fget if isinstance(value, property) else value
                if not member.startswith("_") and inspect.isfunction(function):
                    yield f"{module.__name__}.{name}.{member}", function


DOCUMENTED = dict(documented_objects())


def run(program: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_the_public_names_are_these() -> None:
    assert set(airflow_workflow_events.__all__) == PUBLIC_NAMES
    assert set(dir(airflow_workflow_events)) == PUBLIC_NAMES
    assert airflow_workflow_events.__all__ == sorted(airflow_workflow_events.__all__)


@pytest.mark.parametrize("folder", ["events", "lifecycle", "outbox", "testing"])
def test_each_name_that_a_folder_offers_loads(folder: str) -> None:
    package = importlib.import_module(f"airflow_workflow_events.{folder}")
    assert set(package.__all__) == set(dir(package)), "what it offers and what it can load"
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_the_lifecycles_names_are_these() -> None:
    package = importlib.import_module("airflow_workflow_events.lifecycle")
    # Written out once more: a name that is dropped from the package is noticed here alone.
    assert set(package.__all__) == {
        "LIFECYCLE_FIELDS",
        "Outcome",
        "event_type_of",
        "lifecycle_event",
        "published_event",
        "run_identity",
    }


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_each_public_name_loads(name: str) -> None:
    assert getattr(airflow_workflow_events, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = airflow_workflow_events.Nothing


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_each_public_class_and_function_has_a_docstring(name: str) -> None:
    # Not inspect.getdoc, which takes a base class's.
    assert (DOCUMENTED[name].__doc__ or "").strip(), f"{name} needs a docstring"


def test_each_module_has_a_docstring() -> None:
    assert [module.__name__ for module in core_modules() if not module.__doc__] == []


def test_the_version_is_one_that_packaging_tools_read() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", airflow_workflow_events.__version__)


def test_importing_the_package_loads_neither_airflow_nor_kafka_nor_pydantic() -> None:
    heavy = {"airflow", "asyncio", "confluent_kafka", "pydantic"}

    assert run(f"import sys, airflow_workflow_events{LOADED.format(names=heavy)}") == "[]"


def test_the_core_imports_with_airflow_blocked() -> None:
    assert run(WITHOUT_AIRFLOW + MODULES + LOADED.format(names={"airflow"})) == "[]"


def test_the_producer_works_with_airflow_blocked() -> None:
    assert run(WITHOUT_AIRFLOW + PUBLISH + LOADED.format(names={"airflow"})) == "[]"


def test_the_events_load_no_kafka_client() -> None:
    program = f"import sys, airflow_workflow_events.events{LOADED.format(names={'confluent_kafka'})}"

    assert run(program) == "[]"


def test_the_error_tree_is_the_one_drawn_in_its_docstring() -> None:
    drawn: dict[str, tuple[str, set[str]]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([│├└─ ]*)(\w+Error)(?: \((\w+)\))?", line)
        if found is None:
            continue
        branch, name, builtin = found.groups()
        depth = len(branch) // 4
        above[depth] = name
        drawn[name] = (above[depth - 1] if depth else "Exception", {builtin} if builtin else set())

    assert drawn.keys() == set(errors.__all__)
    for name, (parent, mixed_in) in drawn.items():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases[0] == parent
        assert set(bases[1:]) == mixed_in


def test_every_error_class_is_exported_and_has_an_example_here() -> None:
    defined = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    }

    assert defined == set(errors.__all__) == {type(error).__name__ for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_all_it_says(error: errors.WorkflowEventsError) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.retriable is error.retriable
    assert {name: value for name, value in vars(again).items() if name != "retriable"} == {
        name: value for name, value in vars(error).items() if name != "retriable"
    }


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_says_as_data_whether_to_try_again(name: str) -> None:
    assert getattr(errors, name).retriable is (name in RETRIABLE)


def test_the_guides_except_clauses_work() -> None:
    for error, kind in (
        (errors.KafkaTimeoutError("x"), TimeoutError),
        (errors.KafkaConnectionError("x"), ConnectionError),
        (errors.EventTooLargeError("x", 1, 1), ValueError),
        (errors.ConfigurationError("x"), ValueError),
        (errors.ProducerClosedError("x"), RuntimeError),
        (errors.ReentrantCallError("x"), RuntimeError),
    ):
        assert isinstance(error, kind)
        assert isinstance(error, errors.WorkflowEventsError)
