"""The commands for the outbox name what they touch, end with one line of error, and obey no event."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_workflow_events import commands, relaying
from airflow_workflow_events.__main__ import main
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.settings import Settings, default_outbox_file
from tests.airflow_versions import AIRFLOW
from tests.broker import Broker, event_of
from tests.events import make_event
from tests.subprocesses import running
from tests.waiting import await_condition

SetOptions = Callable[..., None]


@pytest.fixture
def outbox(tmp_path: Path, set_options: SetOptions) -> Outbox:
    """The outbox of the options."""
    set_options(outbox_url=f"sqlite:///{tmp_path}/outbox.db")
    found = relaying.outbox_of(Settings.load())
    assert found is not None
    return found


def park(outbox: Outbox, *ids: str, reason: str = "not authorised") -> None:
    """Have events parked."""
    for event_id in ids:
        outbox.append(make_event(event_id=event_id))
    entries = outbox.claim(outbox.routes()[0], "test", lease_seconds=60, count=len(ids))
    outbox.settle("test", parked=[(entry.seq, reason) for entry in entries])


def test_discarding_names_what_it_removes_and_removes_nothing_unasked(
    outbox: Outbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    park(outbox, "first", "second")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit, match="nothing was removed: add --yes"):
        commands.discard_parked(Namespace(event_id=None, yes=False))
    assert outbox.totals().parked == 2
    assert "first  workflow.completed" in capsys.readouterr().out
    commands.discard_parked(Namespace(event_id="second", yes=True))
    assert capsys.readouterr().out.endswith("1 event(s) were removed\n")
    assert [entry.event_id for entry in outbox.parked()] == ["first"]


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("", 1), ("y", 0)])
def test_a_person_is_asked_before_anything_is_discarded(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    park(outbox, "first")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: answer)
    if left:
        with pytest.raises(SystemExit, match="nothing was removed"):
            commands.discard_parked(Namespace(event_id=None, yes=False))
    else:
        commands.discard_parked(Namespace(event_id=None, yes=False))
    assert outbox.totals().parked == left


@pytest.mark.parametrize("command", [commands.retry_parked, commands.discard_parked])
def test_an_id_that_no_parked_event_has_is_an_error(
    outbox: Outbox, command: Callable[[Namespace], None]
) -> None:
    with pytest.raises(SystemExit, match="no parked event has the id nosuch"):
        command(Namespace(event_id="nosuch", yes=True))


def test_an_empty_list_says_so(outbox: Outbox, capsys: pytest.CaptureFixture[str]) -> None:
    commands.show_parked(Namespace(limit=100))
    assert capsys.readouterr().out == "no event is parked\n"


def test_a_list_that_is_cut_says_so(outbox: Outbox, capsys: pytest.CaptureFixture[str]) -> None:
    park(outbox, "first", "second")
    commands.show_parked(Namespace(limit=1))
    assert capsys.readouterr().out.endswith("1 more: raise --limit\n")


def test_what_others_wrote_reaches_no_terminal_as_a_command(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(outbox, "red\x1b[31m\nline", reason="€ \x07")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    commands.show_parked(Namespace(limit=100))
    terminal.flush()
    shown = terminal.buffer.getvalue()
    assert shown.count(b"\n") == 1
    assert b"red\\x1b[31m\\nline" in shown
    assert b"\\u20ac" in shown
    assert not {7, 27} & set(shown)


def test_the_outboxs_place_is_shown_as_it_is(
    outbox: Outbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.show_outbox(Namespace())
    assert f"outbox      {tmp_path}/outbox.db\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///{}/no/outbox.db", "the folder .*/no does not exist; create it"),
        ("sqlite:///outbox.db", "the path is relative.*use sqlite:////absolute/path"),
        ("mysql://host/db", "the outbox cannot live in mysql"),
    ],
)
def test_an_outbox_that_cannot_be_is_one_line(
    tmp_path: Path, set_options: SetOptions, url: str, reason: str
) -> None:
    set_options(outbox_url=url.format(tmp_path))
    with pytest.raises(SystemExit, match=reason) as caught:
        commands.show_outbox(Namespace())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("option", ["callback_timeout_seconds", "outbox_max_rows"])
def test_an_option_that_cannot_be_used_is_told_and_stops_no_command(
    outbox: Outbox, set_options: SetOptions, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    set_options(**{option: "ten"})
    commands.show_outbox(Namespace())
    shown = capsys.readouterr()
    assert "pending     0" in shown.out
    assert f"{option} is 'ten': use a number" in shown.err


def test_commands_see_to_the_file_of_a_listener_that_was_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("airflow.configuration.AIRFLOW_HOME", str(tmp_path))
    database = OutboxDatabase(f"sqlite:///{default_outbox_file()}")
    Outbox(database).append(make_event(), Route())
    database.close()
    commands.show_outbox(Namespace())
    assert "pending     1" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0", "-1", "ten", str(2**63), "9" * 23, "9" * 5_000, "1" * 11, "\u00b2"])
def test_a_limit_and_a_process_id_are_whole_numbers_in_bounds(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, option in (("parked", "--limit"), ("relay", "--parent")):
        with pytest.raises(SystemExit) as caught:
            main([command, f"{option}={text}"])
        assert caught.value.code == 2
        assert "is not a whole number from 1 to 2147483647" in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "airflow_workflow_events"]


def environment_of(folder: Path) -> dict[str, str]:
    """What a command's process needs to know of the outbox of the options."""
    return {**os.environ, "AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL": f"sqlite:///{folder}/outbox.db"}


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("| true; exit ${PIPESTATUS[0]}", 141, ""),
        (">&-", 1, "the output cannot be written: stdout is closed\n"),
        (">/dev/full", 1, "the output cannot be written: No space left on device\n"),
    ],
)
def test_output_that_cannot_be_written_is_one_line_at_most(
    tmp_path: Path, outbox: Outbox, redirection: str, code: int, said: str
) -> None:
    park(outbox, "first")
    script = f"{shlex.join(COMMAND)} parked {redirection}"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    errors = done.stderr
    if AIRFLOW < (3, 2):  # whose own commands begin with alembic's log of its plugins, too
        errors = re.sub(r"(?m)^.*\[alembic\.runtime\.plugins\].*\n", "", errors)
    assert (done.returncode, errors) == (code, said)


@pytest.mark.parametrize(
    ("key", "code"),
    [(b"\x04", 1), (b"\x03", 130), (b"\xff\n", 1)],
)
def test_a_question_that_gets_no_answer_removes_nothing(
    tmp_path: Path, outbox: Outbox, key: bytes, code: int
) -> None:
    park(outbox, "first")
    ours, its = pty.openpty()
    command = ["setsid", "--ctty", "--wait", *COMMAND, "discard"]
    with running(command, stdin=its, stdout=its, stderr=its, env=environment_of(tmp_path)) as process:
        os.close(its)
        shown, typed = b"", False
        try:
            while True:
                is_quiet = not select.select([ours], [], [], 1)[0]
                if not is_quiet:
                    shown += os.read(ours, 4096)
                # Python heeds no ctrl-C that comes between its last look for one and the system call that
                # waits for an answer: whoever sees nothing happen types it again.
                is_waiting = b"[y/N]" in shown and b"nothing was removed" not in shown
                if is_waiting and (is_quiet or not typed):
                    os.write(ours, key)
                    typed = True
        except OSError:
            pass  # the end of its terminal
        finally:
            os.close(ours)
    assert process.returncode == code
    assert shown.decode(errors="replace").split("[y/N]")[1].strip().endswith("nothing was removed")
    assert "Traceback" not in shown.decode(errors="replace")
    assert outbox.totals().parked == 1


def test_a_relay_looks_its_connections_up_when_it_gets_a_hangup_signal(
    outbox: Outbox, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    monkeypatch.setattr(BackgroundRelay, "look_again", lambda _self: looked.set())
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    def send_signals() -> None:
        try:
            await_condition(lambda: outbox.relays(60), timeout_seconds=60, what="the relay to be at work")
            os.kill(os.getpid(), signal.SIGHUP)
            looked.wait(30)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send_signals)
    sender.start()
    try:
        commands.relay(Namespace(parent=None))
    finally:
        sender.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert looked.is_set()


def test_every_command_of_airflow_is_also_one_of_the_packages_own(capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands.command_group().subcommands:
        with pytest.raises(SystemExit) as caught:
            main([command.name, "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert f"python -m airflow_workflow_events {command.name}" in shown
        assert str(command.help) in shown


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["parked", "--limit", "0"]])
def test_a_command_that_there_is_not_ends_with_its_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m airflow_workflow_events")


def test_the_package_run_as_a_program_relays_until_it_is_stopped(
    tmp_path: Path, outbox: Outbox, embedded_broker: Broker
) -> None:
    topic = f"relayed-{uuid4()}"
    extra = {"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": topic}
    outbox.append(make_event(event_id="first"))
    environment = {
        **os.environ,
        "AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL": f"sqlite:///{tmp_path}/outbox.db",
        "AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT": json.dumps({"conn_type": "workflow_events", "extra": extra}),
    }
    with running([sys.executable, "-m", "airflow_workflow_events", "relay"], env=environment) as process:
        try:
            await_condition(
                lambda: not outbox.totals().pending, timeout_seconds=120, what="the event to be delivered"
            )
        finally:
            process.terminate()
    assert process.returncode == 0
    assert [event_of(message).event_id for message in embedded_broker.messages(topic, 1)] == ["first"]


def test_without_airflow_the_module_says_what_to_install() -> None:
    program = "import sys; sys.modules['airflow'] = None; import airflow_workflow_events.__main__"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "needs Apache Airflow, which is not installed: pip install airflow-workflow-events" in done.stderr
