"""Each component says once what is on, and what in the options cannot be meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from airflow_workflow_events.compat import conf

import pytest

from airflow_workflow_events import startup
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.settings import Settings, default_outbox_file
from tests.events import make_event

SetOptions = Callable[..., None]
LogOf = Callable[[str], str]


def told(monkeypatch: pytest.MonkeyPatch, log_of: LogOf, *command: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["airflow", *command])
    startup._tell()
    return log_of("startup").splitlines()


def test_a_component_says_in_one_line_what_is_published_and_where_to(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf
) -> None:
    set_options(
        listener="True",
        event_types="workflow.*",
        dags_deny="tmp_*",
        conn_id="kafka",
        outbox_url="postgresql://etl:s3cret@db/events?password=s3cret",
    )
    [line] = told(monkeypatch, log_of, "triggerer")
    assert "listener on (dags_deny tmp_*; event_types workflow.*)" in line
    assert "connection kafka, topic workflow-events unless the connection names one" in line
    assert "outbox postgresql events at db; relay in this process" in line
    assert "s3cret" not in line


def test_so_it_does_where_the_listener_is_off_and_other_commands_say_nothing(
    monkeypatch: pytest.MonkeyPatch, log_of: LogOf
) -> None:
    assert told(monkeypatch, log_of, "dags", "list") == []
    [line] = told(monkeypatch, log_of, "api-server")
    assert "listener off" in line
    assert "outbox none; relay none in this process" in line


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        (
            {"callback_timeout_second": "5"},
            "callback_timeout_second is not an option: did you mean callback_timeout_seconds?",
        ),
        ({"event_types": "workflow.complete"}, "event_types: 'workflow.complete' matches no event type"),
        ({"callback_timeout_seconds": "ten"}, "callback_timeout_seconds is 'ten': use a number of seconds"),
        ({"outbox_max_rows": "-1"}, "outbox_max_rows is '-1': use a number above 0"),
        ({"outbox_when_full": "wait"}, "outbox_when_full is 'wait': use refuse or drop_oldest"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    set_options: SetOptions,
    monkeypatch: pytest.MonkeyPatch,
    log_of: LogOf,
    options: dict[str, str],
    mistake: str,
) -> None:
    set_options(listener="True", **options)
    _, line = told(monkeypatch, log_of, "scheduler")
    assert mistake in line


def test_a_listener_that_is_neither_on_nor_off_is_off_and_told(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf
) -> None:
    set_options(listener="maybe")
    off, line = told(monkeypatch, log_of, "scheduler")
    assert "listener off" in off
    assert "listener is 'maybe': use True or False; the default, False, is used" in line


def test_a_glob_of_dags_that_matches_none_is_told(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf
) -> None:
    set_options(listener="True", dags_allow="sale_*, orders")
    monkeypatch.setattr(startup, "_known_dags", lambda: ["sales_eu", "orders"])
    _, line = told(monkeypatch, log_of, "scheduler")
    assert "dags_allow: 'sale_*' matches none of the 2 DAGs" in line


def test_the_default_is_used_of_an_option_that_cannot_be_used(set_options: SetOptions) -> None:
    set_options(callback_timeout_seconds="ten", outbox_max_rows="many", topic="prod.events")
    settings = Settings.load()
    assert (settings.callback_timeout_seconds, settings.outbox_bounds.max_rows) == (10.0, 1_000_000)
    assert settings.topic == "prod.events"
    assert len(settings.mistakes) == 2


def test_no_option_of_ours_is_unknown(set_options: SetOptions) -> None:
    set_options(outbox_url_cmd="cat /run/secrets/url", dags_allow="a")
    assert startup.unknown_options() == []


def test_a_file_of_options_is_checked_as_the_environment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    if not conf.has_section("workflow_events"):
        conf.add_section("workflow_events")
    conf.set("workflow_events", "topics", "a")
    try:
        assert startup.unknown_options() == ["[workflow_events] topics is not an option: did you mean topic?"]
    finally:
        conf.remove_option("workflow_events", "topics")


@pytest.mark.parametrize("name", ["topic_cmd", "conn_id_secret", "listener_cmd"])
def test_a_command_or_a_secret_of_an_option_that_airflow_reads_from_neither_is_told(
    set_options: SetOptions, name: str
) -> None:
    set_options(**{name: "echo true"})
    [line] = startup.unknown_options()
    assert f"{name} has no effect: Airflow reads only outbox_url from a command" in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://etl:s3@cret@db/events",
        "postgresql://e/tl:s3cret@db/events",
        "postgresql://etl:s3cret/events",
        "s3cret",
    ],
)
def test_nothing_of_a_url_that_is_none_is_told(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf, url: str
) -> None:
    set_options(listener="True", outbox_url=url)
    [line] = told(monkeypatch, log_of, "scheduler")
    assert "outbox not usable: the outbox's URL" in line
    assert "cret" not in line


def test_what_a_command_printed_that_failed_is_not_told_and_the_listener_has_its_file(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf
) -> None:
    set_options(listener="True", outbox_url_cmd="sh -c 'echo postgresql://etl:s3cret@db/events; exit 3'")
    line, mistake = told(monkeypatch, log_of, "scheduler")
    assert "workflow_events/outbox.db" in line
    assert "outbox_url cannot be read: AirflowConfigException" in mistake
    assert mistake.endswith("it counts as not set")
    assert "s3cret" not in line + mistake


@pytest.mark.parametrize("asks_providers", [True, False])
def test_a_job_tells_it_once_whether_or_not_airflow_asks_providers_for_commands(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf, asks_providers: bool
) -> None:
    set_options(listener="True")
    monkeypatch.setattr(startup, "_is_told", False)
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    if asks_providers:
        startup._tell()
    for _ in range(2):
        startup.tell_unless_told()
    assert log_of("startup").count("workflow events: listener on") == 1


@pytest.mark.parametrize(
    ("url", "mistake"),
    [
        ("sqlite:///events.db", "the path is relative"),
        ("sqlite:////nonexistent/folder/events.db", "the folder /nonexistent/folder does not exist"),
    ],
)
def test_an_outbox_in_a_place_where_none_can_be_is_told(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf, url: str, mistake: str
) -> None:
    set_options(outbox_url=url)
    _, line = told(monkeypatch, log_of, "scheduler")
    assert mistake in line


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgres://etl:s3cret@db/events", "cannot live in postgres: use sqlite or postgresql"),
        ("mysql://etl:s3cret@db/events", "cannot live in mysql"),
        ("sqlite://", "needs a file"),
        ("sqlite+aiosqlite:////tmp/events.db", "cannot use sqlite by aiosqlite: use pysqlite"),
        (
            "postgresql+asyncpg://etl:s3cret@db/events",
            "cannot use postgresql by asyncpg: use psycopg2 or psycopg",
        ),
        ("sqlite:////tmp/events.db?timeout=s3cret", "has an option after the ? that cannot be used"),
    ],
)
def test_a_url_where_no_outbox_can_live_is_told(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf, url: str, problem: str
) -> None:
    set_options(listener="True", outbox_url=url)
    [line] = told(monkeypatch, log_of, "scheduler")
    assert "outbox not usable: the outbox" in line
    assert problem in line
    assert "s3cret" not in line


def test_a_driver_that_is_not_installed_is_told(
    set_options: SetOptions, monkeypatch: pytest.MonkeyPatch, log_of: LogOf
) -> None:
    set_options(outbox_url="postgresql+psycopg2://etl:s3cret@db/events")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    _, line = told(monkeypatch, log_of, "scheduler")
    assert "pip install 'airflow-workflow-events[postgres]'" in line
    assert "s3cret" not in line


def test_events_left_behind_by_a_listener_that_was_turned_off_are_told(
    monkeypatch: pytest.MonkeyPatch, log_of: LogOf, tmp_path: Path
) -> None:
    monkeypatch.setattr("airflow.configuration.AIRFLOW_HOME", str(tmp_path))
    file = default_outbox_file()
    assert len(told(monkeypatch, log_of, "scheduler")) == 1
    assert not file.exists()

    database = OutboxDatabase(f"sqlite:///{file}")
    Outbox(database).append(make_event(), Route())
    database.close()
    line = told(monkeypatch, log_of, "scheduler")[-1]
    assert (
        f"1 event(s) wait in {file}, and no relay delivers them while [workflow_events] listener is off"
        in line
    )
