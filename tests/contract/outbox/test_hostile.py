"""What others have done to an outbox, its file or its URL is told, and stops no delivery."""

from __future__ import annotations

import builtins
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events.errors import OutboxUnavailableError, WorkflowEventsError
from airflow_workflow_events.outbox import files
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event


class Taking:
    """A destination that takes everything."""

    environment = None

    def __init__(self) -> None:
        self.taken: list[WorkflowEvent] = []

    def deliver(
        self, events: Sequence[WorkflowEvent], _topic: str | None, _timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        self.taken += events
        return [None] * len(events)

    def abandon(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is held."""


def drained(outbox: Outbox, key: str | None = None) -> list[WorkflowEvent]:
    """Deliver everything and return it."""
    taking = Taking()
    relay = Relay(outbox, lambda _conn_id: taking)
    relay.drain(key=key)
    return taking.taken


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test hear of its own file."""
    monkeypatch.setattr(files, "_told", set())


def test_ids_with_u0000_are_accepted_and_delivered_as_they_are(outbox: Outbox) -> None:
    event = make_event(event_id="a\0b", workflow_run_id="run\0")
    outbox.append(event)
    outbox.append(event)
    assert outbox.totals().pending == 1
    [delivered] = drained(outbox, event.ordering_key)
    assert (delivered.event_id, delivered.workflow_run_id) == ("a\0b", "run\0")
    assert outbox.totals().pending == 0


def test_a_reason_with_u0000_is_kept_readable(outbox: Outbox) -> None:
    outbox.append(make_event())
    [entry] = outbox.claim(outbox.routes()[0], "test", lease_seconds=60, count=1)
    outbox.settle("test", parked=[(entry.seq, "a\0b\n\x1b")])
    assert outbox.parked()[0].reason == "a\\x00b\\n\\x1b"


def test_a_row_that_is_not_utf_8_is_parked_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    for event_id in ("damaged", "fine"):
        outbox.append(make_event(event_id=event_id))
    with outbox.database.connect() as connection:
        connection.execute(
            sa.text(
                "UPDATE workflow_events_outbox SET payload = CAST(x'7B22FF' AS TEXT), "
                "id = CAST(x'64FF' AS TEXT) WHERE id = 'damaged'"
            )
        )
    assert [event.event_id for event in drained(outbox)] == ["fine"]
    [parked] = outbox.parked()
    assert parked.reason
    assert "event d\\udcff is parked" in caplog.text
    assert outbox.totals()[:2] == (0, 1)


def test_a_link_to_nothing_is_no_outbox(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").symlink_to(tmp_path / "elsewhere.db")
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    with pytest.raises(
        OutboxUnavailableError, match=r"symbolic link to .*elsewhere\.db, which does not exist"
    ):
        outbox.append(make_event())
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_link_to_an_outbox_is_one(tmp_path: Path) -> None:
    Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/real.db")).append(make_event())
    (tmp_path / "outbox.db").symlink_to(tmp_path / "real.db")
    assert Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db")).totals().pending == 1


@pytest.mark.parametrize("mode", [0o666, 0o604])
def test_a_file_that_everybody_may_open_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    file = tmp_path / "outbox.db"
    file.touch()
    file.chmod(mode)
    for _ in range(2):
        Outbox(OutboxDatabase(f"sqlite:///{file}")).append(make_event())
    [told] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert f"every user of this host has access to it (mode 0{mode:o}); run chmod o=" in told.getMessage()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize(("mode", "is_told"), [(0o600, True), (0o660, False)])
def test_a_file_of_another_user_is_warned_of_unless_it_is_shared_by_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, is_told: bool
) -> None:
    file = tmp_path / "outbox.db"
    file.touch()
    os.chown(file, 12_345, 12_345)
    file.chmod(mode)
    Outbox(OutboxDatabase(f"sqlite:///{file}")).append(make_event())
    assert ("it belongs to user 12345" in caplog.text) is is_told


def test_a_file_that_is_made_here_is_warned_of_never(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db")).append(make_event())
    assert caplog.records == []


@pytest.mark.parametrize(
    "options",
    ["password=s3cret/pass", "password=s3cret%2Fpass&sslmode=disable", "sslpassword=s3cret%2Fpass"],
)
def test_a_password_among_the_options_of_a_url_is_never_shown(options: str) -> None:
    database = OutboxDatabase(f"postgresql://tests@127.0.0.1:1/db?{options}")
    shown = [repr(database), database.name, database.place]
    with pytest.raises(OutboxUnavailableError, match=r"tests@127\.0\.0\.1:1/db cannot be used") as caught:
        Outbox(database).append(make_event())
    shown.append(str(caught.value))
    assert "s3cret" not in "".join(shown)
    assert "\n" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_psycopg2(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "psycopg2":
            raise ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")
        return original(name, *arguments, **options)

    database = OutboxDatabase("postgresql://tests@127.0.0.1:1/db")
    monkeypatch.setattr(builtins, "__import__", without_psycopg2)
    with pytest.raises(OutboxUnavailableError) as caught:
        Outbox(database).append(make_event())
    assert "pip install 'airflow-workflow-events[postgres]'" in str(caught.value)
