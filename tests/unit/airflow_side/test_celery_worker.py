"""A relay lives and ends with a Celery worker whose host has an outbox of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from airflow.utils import cli_action_loggers

from airflow_workflow_events import celery_worker, commands
from tests.airflow_names import COMMAND
from tests.subprocesses import running
from tests.waiting import await_condition

SetOptions = Callable[..., None]
Receiver = Callable[..., None]


class Signal:
    """One of Celery's signals."""

    def __init__(self) -> None:
        self.receivers: dict[str, Receiver] = {}

    def connect(self, receiver: Receiver, *, weak: bool, dispatch_uid: str) -> None:
        assert not weak
        self.receivers[dispatch_uid] = receiver

    def send(self) -> None:
        for receiver in self.receivers.values():
            receiver(sender=self)


@pytest.fixture
def celery(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Celery's signals; the package itself is not needed to test who listens to them."""
    signals = SimpleNamespace(worker_ready=Signal(), worker_shutdown=Signal())
    module = ModuleType("celery")
    module.signals = signals  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "celery", module)
    return signals


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands of relays that were started; a process that waits for its end runs in place of each."""
    commands_: list[list[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        commands_.append(command)
        assert options["start_new_session"] is True
        return popen([sys.executable, "-c", "import signal; signal.pause()"])

    monkeypatch.setattr("airflow_workflow_events.celery_worker.subprocess.Popen", start)
    yield commands_
    celery_worker._relay.stop()


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """What Airflow's command line does before it runs a command."""
    monkeypatch.setattr(sys, "argv", ["airflow", *arguments])
    monkeypatch.setattr(cli_action_loggers, "__pre_exec_callbacks", [])
    commands.get_cli_commands()
    cli_action_loggers.on_pre_execution(sub_command="worker", full_command=str(sys.argv))  # type: ignore[no-untyped-call]


def test_a_worker_with_an_outbox_in_a_file_has_a_relay_until_it_shuts_down(
    celery: SimpleNamespace,
    started: list[list[str]],
    set_options: SetOptions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    set_options(listener="True", outbox_url=f"sqlite:///{tmp_path}/outbox.db")
    run_command(monkeypatch, "celery", "worker", "--concurrency", "2")
    assert started == []
    celery.worker_ready.send()
    assert [command[-4:] for command in started] == [
        ["workflow-events", "relay", "--parent", str(os.getpid())]
    ]
    relay = celery_worker._relay.process
    assert relay is not None
    celery.worker_shutdown.send()
    assert relay.returncode == -signal.SIGTERM


def test_a_worker_that_is_ready_twice_has_one_relay(
    celery: SimpleNamespace,
    started: list[list[str]],
    set_options: SetOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_options(listener="True", outbox_when_full="explode")  # which is told, and its default used
    run_command(monkeypatch, "celery", "worker")
    celery.worker_ready.send()
    celery.worker_ready.send()
    assert len(started) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"listener": "False", "outbox_url": "sqlite:////nowhere/outbox.db"},
        {"listener": "True", "outbox_url": "postgresql://events@db/airflow"},
        {"listener": "maybe"},
    ],
    ids=["listener off", "an outbox that hosts share", "a listener that is neither on nor off"],
)
def test_a_worker_needs_no_relay_where_nothing_waits_on_its_host(
    celery: SimpleNamespace,
    started: list[list[str]],
    set_options: SetOptions,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
) -> None:
    set_options(**options)
    run_command(monkeypatch, "celery", "worker")
    celery.worker_ready.send()
    celery.worker_shutdown.send()
    assert started == []


@pytest.mark.parametrize("arguments", [("celery", "flower"), ("scheduler",), ("edge", "worker"), ()])
def test_no_other_command_has_to_do_with_celery(
    celery: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    run_command(monkeypatch, *arguments)
    assert celery.worker_ready.receivers == {}


def test_a_relay_ends_when_its_parent_has_been_killed(tmp_path: Path) -> None:
    parent = (
        "import os, subprocess, sys\n"
        f"relay = subprocess.Popen([*{COMMAND}, 'relay',"
        " '--parent', str(os.getpid())], stdout=subprocess.PIPE, text=True)\n"
        "print(relay.pid, relay.stdout.readline().strip(), flush=True)\n"
        "relay.wait()\n"
    )
    environment = os.environ | {
        "AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL": f"sqlite:///{tmp_path}/outbox.db",
        "AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT": '{"conn_type": "workflow_events", "host": "127.0.0.1"}',
    }
    with running(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, said = process.stdout.readline().split(maxsplit=1)
        assert said.startswith("relaying from")
        process.kill()
    await_condition(
        lambda: not Path("/proc", pid).exists(), timeout_seconds=60, what="the relay to end with its parent"
    )
