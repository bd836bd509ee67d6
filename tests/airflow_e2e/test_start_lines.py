"""What each of Airflow's components says at its start holds no secret, wherever the outbox's URL is from."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.airflow_versions import NO_ASYNC_DATABASE, PROVIDERS_HAVE_COMMANDS
from tests.faults.deployments.layer import layer
from tests.faults.processes.airflow_parts import AirflowParts
from tests.waiting import await_condition

pytestmark = [
    pytest.mark.airflow_e2e,
    pytest.mark.xdist_group("airflow"),
    pytest.mark.skipif(not PROVIDERS_HAVE_COMMANDS, reason="Airflow 3.1 asks no provider for its commands"),
]

_COMMANDS = {
    "scheduler": "in this process",
    "dag-processor": "in this process",
    "triggerer": "in this process",
    "api-server": "in this process, from the first mark by hand on",
    "celery worker": "beside this process, for an outbox in a file",
}
_START_SECONDS = 120
_URL = "postgresql://etl:s3cret@db.example/events?sslpassword=s3cret"
_NOWHERE = "postgresql+psycopg2://airflow@127.0.0.1:1/airflow"


@pytest.mark.parametrize(
    "outbox",
    [
        {"workflow_events.outbox_url_cmd": "cat FILE"},
        {
            "workflow_events.outbox_url_secret": "events/outbox",
            "secrets.backend": "tests.airflow_e2e.secret_options.OptionsBackend",
            "secrets.backend_kwargs": json.dumps({"options": {"events/outbox": _URL}}),
        },
        {"workflow_events.outbox_url_cmd": "sh -c 'cat FILE; exit 3'"},
    ],
    ids=["command", "secret", "command that fails"],
)
def test_five_components_tell_what_is_on_and_no_secret(
    tmp_path: Path, pytestconfig: pytest.Config, outbox: dict[str, str]
) -> None:
    """Each says it first of all: no database is there, and none of them gets any further."""
    (tmp_path / "url").write_text(_URL)
    outbox = {name: value.replace("FILE", str(tmp_path / "url")) for name, value in outbox.items()}
    fails = "exit" in next(iter(outbox.values()))
    config = {
        "core.executor": "CeleryExecutor",
        "celery.broker_url": "memory://",
        "database.sql_alchemy_conn": _NOWHERE,
        "database.sql_alchemy_conn_async": NO_ASYNC_DATABASE,
        "workflow_events.listener": "True",
        "workflow_events.dags_deny": "tmp_*",
        "workflow_events.topic_secret": "events/topic",
        **outbox,
    }
    root = pytestconfig.rootpath
    paths = f"{layer(root / '.work' / 'deployments')}:{root}"
    with AirflowParts(tmp_path, tmp_path, config=config) as airflow:
        airflow.logs.mkdir()
        for command in _COMMANDS:
            airflow.start_part(command, "airflow", *command.split(), PYTHONPATH=paths)
        for command, relay in _COMMANDS.items():
            await_condition(
                partial(_has_told_all, airflow, command),
                timeout_seconds=_START_SECONDS,
                what=f"what {command} says",
            )
            [line] = [one for one in airflow.log(command).splitlines() if "workflow events: " in one]
            assert (
                "listener on (dags_deny tmp_*); connection workflow_events_default, topic workflow-events"
                in line
            )
            place = (
                f"sqlite {tmp_path}/workflow_events/outbox.db" if fails else "postgresql events at db.example"
            )
            assert f"outbox {place}; relay {relay}" in line
            assert ("outbox_url cannot be read" in airflow.log(command)) is fails
        for command in _COMMANDS:
            airflow.end_part(command)
            assert "s3cret" not in airflow.log(command)


def _has_told_all(airflow: AirflowParts, command: str) -> bool:
    """Whether the options' mistakes, which come after the line, are in the log."""
    return "topic_secret has no effect" in airflow.log(command)
