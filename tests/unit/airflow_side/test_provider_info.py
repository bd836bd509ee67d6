"""What Airflow reads about this provider, checked with Airflow's own schemas and its own readers."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from packaging.utils import canonicalize_name

from airflow_workflow_events.provider_info import (
    CONNECTION_FIELDS,
    DEFAULT_CONNECTION,
    OPTIONS,
    get_provider_info,
)
from tests.airflow_names import since_airflow
from tests.unit.airflow_side.processes import run_airflow, run_program

#: provider.yaml describes a folder of Airflow's own repository. These keys are about Airflow's releases of it
#: (life cycle, reproducible builds, the list of versions); Airflow's build drops or never copies them into a
#: provider's info, and a provider from elsewhere has no use for them.
RELEASE_KEYS_OF_AIRFLOWS_REPOSITORY = {"state", "source-date-epoch", "versions"}

PROVIDERS = """
import json
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

manager, runtime = ProvidersManager(), ProvidersManagerTaskRuntime()
hook = runtime.hooks["workflow_events"]
form = {name: widget.hook_class_name for name, widget in manager.connection_form_widgets.items()}
print(json.dumps({
    "provider": "airflow-workflow-events" in manager.providers,
    "types": {t.connection_type: [t.hook_name, t.hook_class_name]
              for t in manager.iter_connection_type_hook_ui_metadata()},
    "form": [name for name in form if name.startswith("extra__workflow_events__")],
    "behaviour": manager.field_behaviours["workflow_events"],
    "hook": [hook.hook_class_name, hook.hook_name, hook.connection_id_attribute_name],
    "testable": hook.connection_testable,
    "decorator": callable(runtime.taskflow_decorators["workflow_event"]),
    "notifications": list(map(str, manager.notification)),
}))
"""


def errors_of(schema_name: str) -> list[jsonschema.ValidationError]:
    schema = json.loads((Path(airflow.__file__).parent / schema_name).read_text())
    return list(jsonschema.Draft7Validator(schema).iter_errors(get_provider_info()))


def class_paths() -> Iterator[str]:
    info = get_provider_info()
    yield from (entry["hook-class-name"] for entry in info["connection-types"])
    yield from (entry["class-name"] for entry in info["task-decorators"])
    yield from info["notifications"]


def module_paths() -> Iterator[str]:
    info = get_provider_info()
    for kind in ("hooks", "operators"):
        for entry in info[kind]:
            yield from entry["python-modules"]


def test_it_is_valid_by_the_schema_that_airflow_checks_at_start_up() -> None:
    assert errors_of("provider_info.schema.json") == []


@since_airflow(3, 2, "the schema knows neither commands nor all that a form may say")
def test_it_is_valid_by_the_stricter_schema_but_for_keys_of_airflows_own_releases() -> None:
    missing = {error.message.split("'")[1] for error in errors_of("provider.yaml.schema.json")}

    assert {error.validator for error in errors_of("provider.yaml.schema.json")} == {"required"}
    assert missing == RELEASE_KEYS_OF_AIRFLOWS_REPOSITORY


def test_the_package_name_is_the_canonical_name_of_the_distribution() -> None:
    name = distribution("airflow-workflow-events").metadata["Name"]

    assert get_provider_info()["package-name"] == name == canonicalize_name(name)


def test_the_installed_entry_point_resolves_to_it() -> None:
    entry_points = distribution("airflow-workflow-events").entry_points.select(
        group="apache_airflow_provider"
    )

    assert [entry_point.load()() for entry_point in entry_points] == [get_provider_info()]


@pytest.mark.parametrize("path", [*class_paths()])
def test_each_class_path_imports(path: str) -> None:
    module, _, name = path.rpartition(".")

    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("path", [*module_paths()])
def test_each_module_path_imports(path: str) -> None:
    assert importlib.import_module(path).__doc__


@pytest.mark.parametrize("name", list(OPTIONS))
def test_an_options_default_is_text_or_none(name: str) -> None:
    # A bool makes `import airflow` fail; numbers are left out as well, for one rule instead of two.
    assert isinstance(OPTIONS[name]["default"], str | None)


def test_the_default_topic_is_the_producers_own() -> None:
    from airflow_workflow_events.events.model import DEFAULT_TOPIC

    assert OPTIONS["topic"]["default"] == DEFAULT_TOPIC


@pytest.mark.parametrize("name", list(CONNECTION_FIELDS))
def test_a_form_field_may_be_left_blank_and_has_label_description_and_section(name: str) -> None:
    field = CONNECTION_FIELDS[name]

    assert "null" in field["schema"]["type"]
    assert field["label"]
    assert field["description"]
    assert field["schema"]["section"]


def test_a_secret_form_field_is_named_so_that_airflow_masks_it() -> None:
    from airflow.providers.common.compat.sdk import redact

    secret = [
        name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"
    ]

    assert sorted(secret) == ["sasl.password", "ssl.key.password"]
    assert redact(dict.fromkeys(secret, "s3cr3t")) == dict.fromkeys(secret, "***")


def test_an_empty_choice_of_the_form_has_a_name_of_its_own() -> None:
    for field in CONNECTION_FIELDS.values():
        if choices := field["schema"].get("enum"):
            names = field["schema"]["values_display"]
            assert set(names) == {str(choice) if choice is not None else "null" for choice in choices}


@since_airflow(3, 2, "tasks have no list of providers of their own")
def test_airflows_own_readers_list_hook_form_decorator_and_notifier_without_a_warning() -> None:
    output = run_program(PROVIDERS, {"PYTHONWARNINGS": "always"})

    assert "warning" not in output.lower()
    assert "error" not in output.lower()
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    hook_class = "airflow_workflow_events.hooks.WorkflowEventHook"
    assert found["provider"]
    assert found["types"]["workflow_events"] == ["Workflow Events (Kafka)", hook_class]
    assert found["form"] == [f"extra__workflow_events__{name}" for name in CONNECTION_FIELDS]
    assert found["behaviour"]["hidden_fields"] == ["schema", "login", "password"]
    assert found["hook"] == [hook_class, "Workflow Events (Kafka)", "workflow_events_conn_id"]
    assert found["testable"]
    assert found["decorator"]
    assert "airflow_workflow_events.notifications.WorkflowEventNotifier" in found["notifications"]


def test_an_option_has_its_default_in_airflows_configuration() -> None:
    assert (
        run_airflow("config", "get-value", "workflow_events", "topic").splitlines()[-1] == "workflow-events"
    )
    assert (
        run_airflow("config", "get-value", "workflow_events", "conn_id").splitlines()[-1]
        == DEFAULT_CONNECTION
    )


def test_importing_it_loads_nothing_else_of_the_package_and_no_airflow() -> None:
    loaded = run_program(
        "import sys, airflow_workflow_events.provider_info\n"
        "print(sorted(n for n in sys.modules if n.startswith('airflow') or n.partition('.')[0] in"
        " {'confluent_kafka', 'pydantic'}))"
    )

    assert json.loads(loaded.replace("'", '"')) == [
        "airflow_workflow_events",
        "airflow_workflow_events.provider_info",
    ]


@pytest.mark.parametrize("module", ["callbacks", "notifications", "operators", "decorators"])
def test_a_dag_file_that_imports_a_module_loads_no_kafka_client(module: str) -> None:
    # Every DAG file is parsed in a process of its own, over and over.
    said = run_program(
        f"import sys, airflow.sdk, airflow_workflow_events.{module}\n"
        "print([n for n in sys.modules if n.partition('.')[0] == 'confluent_kafka'])"
    )
    assert said.splitlines()[-1] == "[]"  # Airflow 3.1 logs there, too
