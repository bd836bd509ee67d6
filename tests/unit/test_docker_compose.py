"""The Compose file and what belongs to it, as far as that can be told without a container engine."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_workflow_events.events import DEFAULT_TOPIC
from airflow_workflow_events.provider_info import (
    CONFIG_SECTION,
    CONNECTION_FIELDS,
    CONNECTION_TYPE,
    DEFAULT_CONNECTION,
    OPTIONS,
    UI_FIELD_BEHAVIOUR,
)

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yaml"
EXAMPLE = ROOT / ".env.example"
DOCKERFILE = ROOT / "docker" / "Dockerfile"

SECRETS = (
    "POSTGRES_PASSWORD",
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_API_SECRET_KEY",
    "AIRFLOW_ADMIN_PASSWORD",
)
AIRFLOW_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
ONE_SHOTS = {"check-env", "kafka-topics", "airflow-init"}
LONG_RUNNING = {"postgres", "kafka", "kafka-ui", *(f"airflow-{name}" for name in AIRFLOW_COMPONENTS)}

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?(?P<message>[^}]+))?\}")


@functools.cache
def raw() -> dict[str, Any]:
    """The file, its anchors resolved and its variables not."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return loaded


def services() -> dict[str, Any]:
    found: dict[str, Any] = raw()["services"]
    return found


def resolve(value: str, variables: Mapping[str, str] | None = None) -> str:
    """Put variables in, as Compose does it; one that is neither given nor has a default stays."""

    def one(match: re.Match[str]) -> str:
        return (variables or {}).get(match["name"]) or match["default"] or match[0]

    return _VARIABLE.sub(one, value).replace("$$", "$")


def example_values() -> dict[str, str]:
    lines = (line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@functools.cache
def good_values() -> dict[str, str]:
    """What .env.example's own commands print, each the value of the variable below it."""
    values = {}
    for command, name in re.findall(r"^#   (python3 -c .+)\n(\w+)=", EXAMPLE.read_text(), re.MULTILINE):
        arguments = [sys.executable, *shlex.split(command)[1:]]
        values[name] = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()
    return values


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """The Compose client that is installed: docker-compose, or the plugin of docker."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        plugin = ["docker", "compose"]
        if subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0:
            return plugin
    if os.environ.get("CI"):
        pytest.fail("CI is set, but no Compose client is installed", pytrace=False)
    pytest.skip("no Compose client is installed")


def run_config(compose: list[str], env_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Nothing of this shell's but what programs need: Compose prefers it to the file.
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [*compose, "-f", str(COMPOSE_FILE), "--env-file", str(env_file), "config", *arguments]
    return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120, check=False)


def write_env(path: Path, values: Mapping[str, str]) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def check_env(values: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what the service check-env runs."""
    service = services()["check-env"]
    assert service["entrypoint"] == ["python", "-c"]
    assert set(service["environment"]) == set(SECRETS)
    program = [sys.executable, "-c", resolve(service["command"][0])]
    return subprocess.run(program, env=dict(values), capture_output=True, text=True, timeout=60, check=False)


# --- the file as Compose sees it


def test_the_client_accepts_the_file_with_values_of_ones_own(compose: list[str], tmp_path: Path) -> None:
    done = run_config(compose, write_env(tmp_path / "env", good_values()))

    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert set(config["services"]) == ONE_SHOTS | LONG_RUNNING
    environment = config["services"]["airflow-scheduler"]["environment"]
    assert environment["AIRFLOW__CORE__FERNET_KEY"] == good_values()["AIRFLOW_FERNET_KEY"]
    password = good_values()["POSTGRES_PASSWORD"]
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == (
        f"postgresql+psycopg2://airflow:{password}@postgres:5432/airflow"
    )
    assert config["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"] == password


def test_the_client_reads_the_example_of_env(compose: list[str]) -> None:
    done = run_config(compose, EXAMPLE, "-q")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("given", ["missing", "empty"])
@pytest.mark.parametrize("name", SECRETS)
def test_compose_refuses_to_start_without_a_secret_and_says_what_to_do(
    compose: list[str], tmp_path: Path, name: str, given: str
) -> None:
    values = {**good_values(), name: ""}
    if given == "missing":
        del values[name]

    done = run_config(compose, write_env(tmp_path / "env", values), "-q")

    assert done.returncode != 0
    assert f"set {name} in .env, see .env.example" in done.stderr


def test_nothing_is_in_the_file_that_one_of_the_clients_refuses() -> None:
    # docker-compose 1.29 knows no top-level name; Compose v2 warns of a version.
    assert {key for key in raw() if not key.startswith("x-")} == {"services", "volumes"}
    assert example_values()["COMPOSE_PROJECT_NAME"] == "airflow-workflow-events"


# --- secrets


def test_every_use_of_a_secret_is_required_and_its_message_names_it() -> None:
    uses = [match for match in _VARIABLE.finditer(COMPOSE_FILE.read_text()) if match["name"] in SECRETS]

    assert {match["name"] for match in uses} == set(SECRETS)
    for match in uses:
        assert match["message"] == f"set {match['name']} in .env, see .env.example"


def test_the_file_has_no_secret_of_its_own() -> None:
    secret = re.compile(r"PASSWORD$|SECRET|_KEY$")
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert _VARIABLE.fullmatch(value), f"{name}: {variable}"
    for password in re.findall(r"://[^\s:/@]+:(.*?)@", COMPOSE_FILE.read_text()):
        assert _VARIABLE.fullmatch(password)


def test_the_example_documents_every_variable_and_no_other() -> None:
    used = {match["name"] for match in _VARIABLE.finditer(COMPOSE_FILE.read_text())}
    optional = dict(re.findall(r"^# (\w+)=(\d+)$", EXAMPLE.read_text(), re.MULTILINE))
    defaults = {
        match["name"]: match["default"]
        for match in _VARIABLE.finditer(COMPOSE_FILE.read_text())
        if match["default"]
    }

    assert example_values().keys() | optional.keys() == used | {"COMPOSE_PROJECT_NAME"}
    assert optional == defaults


def test_the_examples_secrets_are_placeholders_and_each_has_a_command_that_makes_one() -> None:
    assert set(good_values()) == set(SECRETS)
    for name in SECRETS:
        assert example_values()[name].startswith("REPLACE_ME")


def test_what_the_examples_commands_make_is_fine() -> None:
    done = check_env(good_values())

    assert (done.returncode, done.stdout) == (0, ".env is fine\n"), done.stderr


def test_placeholders_are_refused_each_by_name() -> None:
    done = check_env(example_values())

    assert done.returncode == 1
    for name in SECRETS:
        assert f"{name} is still the placeholder of .env.example" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("AIRFLOW_ADMIN_PASSWORD", "admin", "has 5 characters, at least 12 are needed"),
        ("AIRFLOW_JWT_SECRET", "a" * 63, "has 63 characters, at least 64 are needed"),
        ("POSTGRES_PASSWORD", "correct/horse@battery", "letters, digits and . _ ~ - only"),
        ("AIRFLOW_FERNET_KEY", "a" * 50, "is not a Fernet key"),
    ],
)
def test_a_value_that_would_not_work_is_refused(name: str, value: str, complaint: str) -> None:
    done = check_env({**good_values(), name: value})

    assert done.returncode == 1
    assert re.search(f"^{name} .*{re.escape(complaint)}", done.stderr, re.MULTILINE)
    assert value not in done.stderr


def test_postgres_does_not_take_its_password_before_the_check() -> None:
    assert services()["postgres"]["depends_on"] == {
        "check-env": {"condition": "service_completed_successfully"}
    }


# --- images


def images() -> dict[str, str]:
    return {
        **{name: service["image"] for name, service in services().items()},
        "docker/Dockerfile": re.findall(r"^FROM (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)[0],
    }


@pytest.mark.parametrize("name", sorted([*ONE_SHOTS, *LONG_RUNNING, "docker/Dockerfile"]))
def test_each_image_has_a_fixed_tag(name: str) -> None:
    _, _, tag = images()[name].rpartition(":")

    assert re.fullmatch(r"(airflow-|v)?\d+(\.\d+)*(-python\d\.\d+)?", tag)


def test_airflow_in_the_image_is_the_one_that_is_tested() -> None:
    [version] = re.findall(r"(?m)^apache-airflow==(.+)$", (ROOT / "constraints.txt").read_text())
    tag = f"{version}-python3.11"

    assert images()["docker/Dockerfile"] == f"apache/airflow:{tag}"
    for name in ("check-env", "airflow-init", *(f"airflow-{name}" for name in AIRFLOW_COMPONENTS)):
        assert images()[name] == f"airflow-workflow-events:airflow-{tag}"


def test_the_image_is_built_once_and_never_pulled() -> None:
    assert [name for name, service in services().items() if "build" in service] == ["check-env"]
    build = services()["check-env"]["build"]
    assert ROOT / build["context"] / build["dockerfile"] == DOCKERFILE
    for name, service in services().items():
        if service["image"] == images()["check-env"]:
            assert service["pull_policy"] == "never", name


def test_kafka_is_the_official_image_and_of_the_fourth_generation() -> None:
    assert images()["kafka"] == images()["kafka-topics"]
    assert images()["kafka"].startswith("apache/kafka:4.")
    assert "zookeeper" not in COMPOSE_FILE.read_text().lower()


@pytest.mark.skipif(
    not (ROOT / "airflow_workflow_events").exists(), reason="there is no source beside an installed wheel"
)
def test_what_the_image_is_built_from_exists_and_is_sent_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = set()
    for arguments in re.findall(r"^COPY --chown=airflow:0 (.+)$", DOCKERFILE.read_text(), re.MULTILINE):
        copied.update(arguments.split()[:-1])

    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


# --- services


def test_every_published_port_is_on_this_machine_alone() -> None:
    published = {
        name: [resolve(port) for port in service["ports"]]
        for name, service in services().items()
        if "ports" in service
    }

    assert published == {
        "kafka": ["127.0.0.1:29092:29092"],
        "kafka-ui": ["127.0.0.1:8081:8080"],
        "airflow-api-server": ["127.0.0.1:8080:8080"],
    }
    assert not any("network_mode" in service for service in services().values())


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_a_long_running_service_restarts_and_has_a_health_check(name: str) -> None:
    service = services()[name]

    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    seconds = {option: int(check[option].removesuffix("s")) for option in ("interval", "timeout")}
    assert 5 <= seconds["interval"] <= 60
    assert seconds["timeout"] <= seconds["interval"]
    assert check["retries"] >= 3
    assert check["start_period"]


@pytest.mark.parametrize("name", sorted(ONE_SHOTS))
def test_a_one_shot_service_runs_once_and_others_wait_for_its_success(name: str) -> None:
    assert services()[name]["restart"] == "no"
    waiting = [
        service["depends_on"][name]
        for service in services().values()
        if name in service.get("depends_on", {})
    ]
    assert waiting
    assert all(one == {"condition": "service_completed_successfully"} for one in waiting)


def test_who_waits_for_a_long_running_service_waits_for_its_health() -> None:
    for service in services().values():
        for name, condition in service.get("depends_on", {}).items():
            if name in LONG_RUNNING:
                assert condition == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", sorted(ONE_SHOTS | LONG_RUNNING))
def test_logs_are_rotated_and_nobody_gains_privileges(name: str) -> None:
    service = services()[name]

    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    assert "privileged" not in service


def test_every_volume_is_declared_and_used() -> None:
    mounts = [mount.split(":") for service in services().values() for mount in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}

    assert named == set(raw()["volumes"])


# --- Kafka


def listeners(option: str) -> dict[str, str]:
    value = resolve(services()["kafka"]["environment"][option])
    return dict(listener.split("://") for listener in value.split(","))


def test_kafka_advertises_to_containers_and_to_this_machine_what_each_can_reach() -> None:
    environment = services()["kafka"]["environment"]

    assert listeners("KAFKA_ADVERTISED_LISTENERS") == {"INTERNAL": "kafka:9092", "HOST": "127.0.0.1:29092"}
    assert listeners("KAFKA_LISTENERS") == {"INTERNAL": ":9092", "CONTROLLER": ":9093", "HOST": ":29092"}
    protocols = dict(
        pair.split(":") for pair in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    assert protocols == dict.fromkeys(listeners("KAFKA_LISTENERS"), "PLAINTEXT")
    assert services()["kafka"]["hostname"] == "kafka"


def test_another_port_for_kafka_is_published_and_advertised() -> None:
    kafka = services()["kafka"]
    port = {"KAFKA_PORT": "19092"}

    assert resolve(kafka["ports"][0], port) == "127.0.0.1:19092:29092"
    assert "HOST://127.0.0.1:19092" in resolve(kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"], port)


def test_kafka_is_a_lone_node_that_keeps_its_data() -> None:
    kafka = services()["kafka"]
    environment = kafka["environment"]

    assert environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"{environment['KAFKA_NODE_ID']}@kafka:9093"
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", environment["CLUSTER_ID"])
    single = [value for name, value in environment.items() if re.search("REPLICATION_FACTOR|MIN_ISR", name)]
    assert single == ["1"] * 5
    assert kafka["volumes"] == [f"kafka-data:{environment['KAFKA_LOG_DIRS']}"]


def test_the_topic_is_created_with_three_partitions() -> None:
    command = services()["kafka-topics"]["command"]

    assert command[0] == "/opt/kafka/bin/kafka-topics.sh"
    assert {"--create", "--if-not-exists", f"--topic={DEFAULT_TOPIC}", "--partitions=3"} < set(command)


# --- Airflow


def airflow_environment() -> dict[str, str]:
    """What all of Airflow's processes are told."""
    environments = [services()[f"airflow-{name}"]["environment"] for name in AIRFLOW_COMPONENTS]
    assert all(environment == environments[0] for environment in environments)
    found: dict[str, str] = environments[0]
    assert found.items() <= services()["airflow-init"]["environment"].items()
    return found


@pytest.mark.parametrize("name", AIRFLOW_COMPONENTS)
def test_each_of_airflows_components_has_a_service_that_starts_after_the_migration(name: str) -> None:
    service = services()[f"airflow-{name}"]

    assert service["command"] == name
    assert {"airflow-init", "kafka-topics"} <= set(service["depends_on"])


def test_airflows_processes_reach_each_other() -> None:
    environment = airflow_environment()

    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert (
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow-api-server:8080/execution/"
    )
    assert resolve(environment["AIRFLOW__API__BASE_URL"]) == "http://localhost:8080"
    assert resolve(environment["AIRFLOW__API__BASE_URL"], {"AIRFLOW_PORT": "9000"}) == "http://localhost:9000"
    assert environment["AIRFLOW__API_AUTH__JWT_SECRET"].startswith("${AIRFLOW_JWT_SECRET:?")


def test_airflow_knows_every_option_that_is_set() -> None:
    # Not from airflow.configuration, which makes a folder in the developer's home.
    airflow = importlib.metadata.distribution("apache-airflow-core")
    template = Path(str(airflow.locate_file("airflow/config_templates/config.yml")))
    sections = {
        name: set(section["options"]) for name, section in yaml.safe_load(template.read_text()).items()
    }
    sections[CONFIG_SECTION] = set(OPTIONS)

    for variable in airflow_environment():
        if variable.startswith("AIRFLOW__"):
            _, section, option = variable.lower().split("__")
            assert option in sections[section], variable


def test_the_connection_is_one_of_this_providers() -> None:
    connection = json.loads(airflow_environment()[f"AIRFLOW_CONN_{DEFAULT_CONNECTION.upper()}"])

    assert connection["conn_type"] == CONNECTION_TYPE
    assert f"{connection['host']}:{connection['port']}" == listeners("KAFKA_ADVERTISED_LISTENERS")["INTERNAL"]
    assert connection["extra"]["topic"] == DEFAULT_TOPIC
    assert not set(UI_FIELD_BEHAVIOUR["hidden-fields"]) & connection.keys()
    for name, value in connection["extra"].items():
        jsonschema.validate(value, CONNECTION_FIELDS[name]["schema"])


@pytest.mark.parametrize("name", AIRFLOW_COMPONENTS)
def test_the_examples_are_the_dags_and_cannot_be_written_to(name: str) -> None:
    dags = [mount for mount in services()[f"airflow-{name}"]["volumes"] if "dags" in mount]

    assert len(dags) == 1
    source, target, mode = dags[0].split(":")
    assert list((ROOT / source).glob("*.py"))
    assert target == airflow_environment()["AIRFLOW__CORE__DAGS_FOLDER"]
    assert mode == "ro"


def run_init(tmp_path: Path, migrate: str) -> subprocess.CompletedProcess[str]:
    """Run what airflow-init runs, with ``migrate`` in the place of Airflow."""
    stub = tmp_path / "bin" / "airflow"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\n{migrate}\n")
    stub.chmod(0o700)
    command = [
        resolve(part).replace("/opt/airflow", str(tmp_path)) for part in services()["airflow-init"]["command"]
    ]
    path = os.pathsep.join([str(stub.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "AIRFLOW_ADMIN_PASSWORD": """o'ne"s own $1"""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_init_writes_the_login_file_where_the_api_server_reads_it(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir()

    done = run_init(tmp_path, 'echo "migrated: $*"')

    assert (done.returncode, done.stdout) == (0, "migrated: db migrate\n"), done.stderr
    environment = airflow_environment()
    path = environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    file = Path(path.replace("/opt/airflow", str(tmp_path)))
    assert json.loads(file.read_text()) == {"admin": """o'ne"s own $1"""}
    assert file.stat().st_mode & 0o777 == 0o600
    assert environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].startswith("admin:")
    mount = f"airflow-auth:{Path(path).parent}"
    assert mount in services()["airflow-init"]["volumes"]
    assert mount in services()["airflow-api-server"]["volumes"]
    # The folder must be the image's own, or it would be root's.
    assert Path(path).parent.name in DOCKERFILE.read_text()


def test_init_fails_when_the_migration_does(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir()

    assert run_init(tmp_path, "exit 3").returncode == 3


def test_init_fails_when_the_login_file_cannot_be_written(tmp_path: Path) -> None:
    assert run_init(tmp_path, "exit 0").returncode != 0
