"""The ``[workflow_events]`` options."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from airflow_workflow_events.settings import Settings
from tests.subprocesses import output_of

SetOptions = Callable[..., None]


def test_without_options_the_defaults_hold() -> None:
    assert Settings.load() == Settings(
        conn_id="workflow_events_default",
        topic="workflow-events",
        environment="default",
        source_instance=None,
        callback_timeout_seconds=10.0,
        conf_keys=frozenset(),
    )


def test_options_are_read_when_they_are_needed(set_options: SetOptions) -> None:
    before = Settings.load()
    set_options(
        conn_id="kafka",
        topic="prod.events",
        environment="prod",
        source_instance=" airflow-eu ",
        callback_timeout_seconds="2.5",
        conf_keys="region, batch_id,,",
    )

    assert before.topic == "workflow-events"
    assert Settings.load() == Settings(
        conn_id="kafka",
        topic="prod.events",
        environment="prod",
        source_instance="airflow-eu",
        callback_timeout_seconds=2.5,
        conf_keys=frozenset({"region", "batch_id"}),
    )


def test_a_blank_option_is_its_default(set_options: SetOptions) -> None:
    set_options(
        listener="", conn_id="", topic=" ", environment="", source_instance="", callback_timeout_seconds=""
    )

    assert Settings.load().topic == "workflow-events"
    assert Settings.load().source_instance is None
    assert Settings.load().callback_timeout_seconds == 10.0
    assert Settings.load().mistakes == ()


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf", "-inf", "1,5"])
def test_a_bound_that_is_no_number_above_zero_is_told_by_name_and_is_its_default(
    set_options: SetOptions, seconds: str
) -> None:
    set_options(callback_timeout_seconds=seconds)

    settings = Settings.load()
    [mistake] = settings.mistakes
    assert mistake.startswith(f"[workflow_events] callback_timeout_seconds is '{seconds}': use a number")
    assert mistake.endswith("the default, 10, is used")
    assert settings.callback_timeout_seconds == 10.0


@pytest.mark.parametrize("topic", ["a b", "../x", "t\u00fc", "x" * 250])
def test_a_topic_that_kafka_would_refuse_is_not_used(set_options: SetOptions, topic: str) -> None:
    set_options(topic=topic, task_topic=topic)
    settings = Settings.load()
    assert (settings.topic, settings.selection.task_topic) == ("workflow-events", None)
    assert [mistake.split(" is ")[0] for mistake in settings.mistakes] == [
        "[workflow_events] topic",
        "[workflow_events] task_topic",
    ]


@pytest.mark.parametrize(
    ("value", "url"),
    [("https://a.example/", "https://a.example"), ("http://a:1/b", "http://a:1/b"), ("", None)],
)
def test_the_uis_address_has_no_slash_at_its_end(
    set_options: SetOptions, value: str, url: str | None
) -> None:
    set_options("api", base_url=value)

    assert Settings.load().base_url == url


def test_a_process_that_no_command_of_airflow_started_reads_the_outbox_from_a_command(
    set_options: SetOptions,
) -> None:
    """Airflow 3.1 has not asked the providers there which options are sensitive."""
    set_options(outbox_url_cmd="echo postgresql://etl:s3cret@db/events")
    code = (
        "from airflow_workflow_events.settings import Settings;"
        " print(Settings.load().outbox_url == 'postgresql://etl:s3cret@db/events')"
    )
    assert output_of(sys.executable, "-c", code).splitlines()[-1] == "True"
