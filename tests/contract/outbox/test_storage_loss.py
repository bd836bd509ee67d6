"""An outbox whose file goes away while it is in use goes on in a new one, and says so."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_workflow_events.errors import OutboxUnavailableError
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.store import Outbox
from tests.events import make_event
from tests.forking import ends_in_child


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """An outbox in a file that holds one event."""
    found = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    found.append(make_event())
    return found


def remove(outbox: Outbox) -> Path:
    path = Path(outbox.database.place)
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    return path


def in_child_of_fork(_outbox: Outbox) -> None:
    """Fork: SQLite's connections are closed before."""
    assert ends_in_child()


@pytest.mark.parametrize(
    "notices",
    [
        pytest.param(in_child_of_fork, id="fork"),
        pytest.param(lambda outbox: outbox.database.leave_file(), id="error"),
        pytest.param(lambda outbox: outbox.database.look_at_file(), id="housekeeping"),
    ],
)
def test_a_file_that_was_removed_is_made_again_for_its_owner_alone(
    outbox: Outbox, notices: Callable[[Outbox], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = remove(outbox)
    notices(outbox)
    outbox.append(make_event())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Outbox(OutboxDatabase(f"sqlite:///{path}")).totals().pending == 1
    told = [one.getMessage() for one in caplog.records if "was removed or replaced" in one.getMessage()]
    assert len(told) == 1


def test_a_file_that_is_still_there_is_nothing_to_warn_of(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.database.look_at_file()
    outbox.database.leave_file()
    outbox.append(make_event())
    assert not caplog.records
    assert outbox.totals().pending == 2


def test_a_file_that_was_emptied_takes_events_again_after_one_failure(outbox: Outbox) -> None:
    path = Path(outbox.database.place)
    outbox.database.leave_file()
    os.truncate(path, 0)
    with pytest.raises(OutboxUnavailableError, match="no such table"):
        outbox.append(make_event())
    outbox.append(make_event())
    assert outbox.totals().pending == 1
