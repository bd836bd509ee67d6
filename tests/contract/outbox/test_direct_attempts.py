"""What the outbox does not accept is attempted directly: each route by itself, until the process ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import KafkaConnectionError, WorkflowEventsError
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.contract.outbox.test_routes import Connections, hanging_until
from tests.counting import Counting
from tests.events import make_event
from tests.waiting import await_condition


@pytest.fixture
def unusable(tmp_path: Path) -> Outbox:
    """An outbox whose file is none of SQLite's."""
    (tmp_path / "unusable.db").write_bytes(b"no database at all, but a file of some length" * 100)
    return Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/unusable.db"))


def test_a_route_whose_direct_attempts_hang_delays_no_other(unusable: Outbox) -> None:
    release = threading.Event()

    connections = Connections(hanging_until(release))
    background = BackgroundRelay(unusable, Relay(unusable, connections.open), poll_seconds=0.05)
    background.start()
    try:
        assert not background.accept(make_event(), Route(None, "hangs"))
        assert not background.accept(make_event(event_id="1"), Route(None, "works"))
        await_condition(lambda: connections.delivered == ["1"], timeout_seconds=15, what="the healthy route")
        assert not release.is_set()
    finally:
        release.set()
        background.stop(1)


def test_the_time_to_stop_is_used_for_all_that_is_in_memory(unusable: Outbox) -> None:
    starts = threading.Event()

    def answer(_events: Sequence[WorkflowEvent], _topic: str | None) -> WorkflowEventsError | None:
        return None if starts.wait(60) else KafkaConnectionError("never let go")

    connections = Connections(answer)
    background = BackgroundRelay(unusable, Relay(unusable, connections.open))
    background.start()
    for number in range(3_000):
        assert not background.accept(make_event(event_id=str(number)))
    starts.set()
    assert background.stop(60)
    assert connections.delivered == [str(number) for number in range(3_000)]


def test_what_is_lost_with_the_process_is_told_by_its_ids_and_counted(
    unusable: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    connections = Connections(lambda _events, _topic: KafkaConnectionError("no broker answered"))
    metrics = Counting()
    background = BackgroundRelay(unusable, Relay(unusable, connections.open), metrics=metrics)
    background.start()
    for number in range(60):
        assert not background.accept(make_event(event_id=f"id{number}"))
    background.stop(2)
    assert not background.accept(make_event(event_id="late"))
    [summary, late] = [
        one.getMessage()
        for one in caplog.records
        if "lost, as" in one.getMessage() or "is lost" in one.getMessage()
    ]
    assert summary.startswith("60 event(s) are lost")
    assert "id0, id1," in summary
    assert summary.endswith("id49, ...")
    assert "event late is lost" in late
    assert metrics.counts[names.FAILED] == 60
    assert metrics.counts[names.DROPPED] == 1
