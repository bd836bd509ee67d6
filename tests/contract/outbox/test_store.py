"""What the outbox accepts stays, in order, until it is settled; what it cannot accept it refuses loudly."""

from __future__ import annotations

import json
import multiprocessing
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_workflow_events.errors import (
    ConfigurationError,
    EventSerializationError,
    OutboxFullError,
    OutboxUnavailableError,
)
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE, Bounds, OutboxEntry, Route
from airflow_workflow_events.outbox.store import Outbox
from tests.contract.outbox.conftest import MakeOutbox
from tests.events import make_event
from tests.waiting import await_condition

ORDERS = Route("orders_kafka", "orders")


def claim(
    outbox: Outbox, owner: str = "relay", *, seconds: float = 60, count: int = 100
) -> list[OutboxEntry]:
    return outbox.claim(DEFAULT_ROUTE, owner, lease_seconds=seconds, count=count)


def ids(entries: list[OutboxEntry]) -> list[str]:
    return [entry.event_id for entry in entries]


def append(outbox: Outbox, run: str, event_id: str, route: Route = DEFAULT_ROUTE) -> None:
    outbox.append(make_event(workflow_run_id=run, event_id=event_id), route)


def test_what_was_accepted_is_claimed_in_order_and_gone_once_settled(outbox: Outbox) -> None:
    for number in range(5):
        append(outbox, f"run{number % 2}", f"e{number}")
    entries = claim(outbox)
    assert ids(entries) == ["e0", "e1", "e2", "e3", "e4"]
    outbox.settle("relay", delivered=[entry.seq for entry in entries])
    assert claim(outbox) == []
    assert outbox.totals() == (0, 0, 0, None)


def test_an_entry_carries_the_event_byte_for_byte(outbox: Outbox) -> None:
    event = make_event(payload={"data": {"text": "ä\u2028'\"", "number": 0.1}})
    outbox.append(event, environment_is_default=True)
    [entry] = claim(outbox)
    assert entry.payload.encode() == event.model_dump_json(exclude_none=True).encode()
    assert (entry.ordering_key, entry.environment_is_default) == (event.ordering_key, True)


def test_an_event_that_is_in_already_is_accepted_once_a_route(outbox: Outbox) -> None:
    append(outbox, "run", "same")
    append(outbox, "run", "same")
    append(outbox, "run", "same", ORDERS)
    assert outbox.totals().pending == 2
    assert outbox.routes() == [DEFAULT_ROUTE, ORDERS]


def test_another_event_under_an_id_that_is_in_already_is_a_warning(
    make_outbox: MakeOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = make_outbox()
    for table in ("orders", "orders", "customers"):
        outbox.append(make_event(event_id="1", data={"table": table}))
    assert outbox.totals().pending == 1
    [warning] = [one.getMessage() for one in caplog.records if "other data" in one.getMessage()]
    assert "event 1 (" in warning
    assert "(table)" in warning
    assert "customers" not in warning


def test_the_same_event_told_twice_by_those_who_know_different_things_is_no_warning(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    told = Outbox(outbox.database, derived=["queued_at"])
    told.append(make_event(event_id="1", data={"queued_at": None, "rows": 1}))
    told.append(make_event(event_id="1", data={"queued_at": "2026-01-01T00:00:00Z", "rows": 1}))
    assert "other data" not in caplog.text


def test_what_one_relay_has_claimed_and_what_is_behind_it_in_its_run_is_not_anothers(
    make_outbox: MakeOutbox,
) -> None:
    first, second = make_outbox(), make_outbox()
    append(first, "a", "a1")
    append(first, "a", "a2")
    append(first, "b", "b1")
    assert ids(claim(first, "one", count=1)) == ["a1"]
    assert ids(claim(second, "two")) == ["b1"]


def test_a_lease_that_ran_out_is_anothers(outbox: Outbox) -> None:
    append(outbox, "run", "e1")
    assert ids(claim(outbox, "dead", seconds=0.2)) == ["e1"]
    assert claim(outbox, "alive") == []
    found = await_condition(lambda: claim(outbox, "alive"), timeout_seconds=10, what="the lease to run out")
    assert ids(found) == ["e1"]
    outbox.settle("dead", retried=[(found[0].seq, "late", 0)])
    assert claim(outbox, "third") == [], "who lost the lease has no say"


def test_what_backs_off_keeps_its_run_waiting_and_no_other(outbox: Outbox) -> None:
    append(outbox, "a", "a1")
    append(outbox, "a", "a2")
    append(outbox, "b", "b1")
    first, *others = claim(outbox)
    outbox.settle(
        "relay",
        retried=[(first.seq, "the leader is away", 60), *((entry.seq, None, 0) for entry in others)],
    )
    [entry] = claim(outbox)
    assert (entry.event_id, entry.attempts) == ("b1", 0)


def test_a_key_can_be_claimed_by_itself(outbox: Outbox) -> None:
    append(outbox, "a", "a1")
    append(outbox, "b", "b1")
    key = make_event(workflow_run_id="b").ordering_key
    assert ids(outbox.claim(DEFAULT_ROUTE, "one", lease_seconds=60, count=9, key=key)) == ["b1"]


def test_what_is_parked_is_seen_with_its_reason_and_no_longer_in_the_way(outbox: Outbox) -> None:
    append(outbox, "a", "a1")
    append(outbox, "a", "a2")
    [first, second] = claim(outbox)
    outbox.settle("relay", parked=[(first.seq, "too large")], retried=[(second.seq, None, 0)])
    assert ids(claim(outbox)) == ["a2"]
    [parked] = outbox.parked()
    assert (parked.event_id, parked.reason, parked.route) == ("a1", "too large", DEFAULT_ROUTE)
    assert outbox.totals()[:2] == (1, 1)


def test_what_is_parked_can_be_retried_or_discarded(outbox: Outbox) -> None:
    for name in ("a", "b", "c"):
        append(outbox, name, name)
    outbox.settle("relay", parked=[(entry.seq, "no permission") for entry in claim(outbox)])
    assert outbox.retry_parked("a") == 1
    assert outbox.discard_parked("b") == 1
    assert ids(claim(outbox)) == ["a"]
    assert outbox.retry_parked() == 1
    assert ids(claim(outbox)) == ["c"]
    assert outbox.parked() == []


def test_at_its_bound_in_rows_it_refuses_what_is_new(make_outbox: MakeOutbox) -> None:
    outbox = make_outbox(max_rows=2)
    append(outbox, "a", "1")
    append(outbox, "a", "2")
    with pytest.raises(OutboxFullError, match="bound of 2 events"):
        append(outbox, "a", "3")
    append(outbox, "a", "2")  # is in already


def test_at_its_bound_in_bytes_it_refuses_what_is_new(make_outbox: MakeOutbox) -> None:
    outbox = make_outbox(max_bytes=2_000)
    append(outbox, "a", "1")
    with pytest.raises(OutboxFullError):
        outbox.append(make_event(payload={"data": {"text": "x" * 2_000}}))


def test_at_its_bound_it_drops_what_is_oldest_if_told_to(make_outbox: MakeOutbox) -> None:
    outbox = make_outbox(max_rows=3, when_full="drop_oldest")
    for number in range(3):
        append(outbox, "a", str(number))
    assert outbox.append(make_event(event_id="new")) == 3
    assert ids(claim(outbox)) == ["new"]


def test_what_waits_for_too_long_is_parked(make_outbox: MakeOutbox) -> None:
    outbox = make_outbox(max_age_seconds=0.001)
    append(outbox, "a", "old")
    assert await_condition(outbox.expire, timeout_seconds=10, what="the event to grow old") == 1
    [parked] = outbox.parked()
    assert (parked.event_id, parked.reason) == ("old", "waited over 0.001 s")


@pytest.mark.parametrize("bound", ["max_rows", "max_bytes", "max_age_seconds"])
def test_a_bound_of_nothing_is_refused(bound: str) -> None:
    with pytest.raises(ConfigurationError, match=bound):
        Bounds(**{bound: 0})  # type: ignore[arg-type]


def test_relays_are_known_by_their_beats(outbox: Outbox) -> None:
    assert outbox.relays(60) == []
    outbox.beat("host:1", "host", 1)
    outbox.beat("host:1", "host", 1)
    assert outbox.relays(60) == ["host:1"]
    outbox.retire("host:1")
    assert outbox.relays(60) == []


def test_an_event_changed_into_something_json_cannot_carry_is_refused(outbox: Outbox) -> None:
    event = make_event(payload={"data": {"a": 1}})
    event.payload.data["a"] = float("nan")
    with pytest.raises(EventSerializationError):
        outbox.append(event)
    assert outbox.totals().pending == 0


def test_debeziums_router_finds_its_columns(outbox: Outbox) -> None:
    outbox.append(make_event(event_id="e1"), ORDERS)
    with outbox.database.connect() as connection:
        row = connection.execute(
            sa.text("SELECT id, aggregatetype, aggregateid, type, payload FROM workflow_events_outbox")
        ).one()
    assert row[:4] == ("e1", "orders", make_event().ordering_key, "workflow.completed")
    assert json.loads(row[4])["event_id"] == "e1"


def _append_some(url: str, worker: int, count: int) -> None:
    outbox = Outbox(OutboxDatabase(url))
    for number in range(count):
        append(outbox, f"run{worker}", f"{worker}-{number:04}")


def test_many_processes_that_start_at_once_share_one_outbox(url: str, outbox: Outbox) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_some, args=(url, worker, 50)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    found = ids(claim(outbox, count=1_000))
    for number in range(4):
        of_worker = [event_id for event_id in found if event_id.startswith(f"{number}-")]
        assert of_worker == sorted(of_worker)
        assert len(of_worker) == 50


def test_a_child_forked_while_threads_append_appends_by_itself(url: str, outbox: Outbox) -> None:
    append(outbox, "parent", "first")
    stop = threading.Event()

    def keep_appending(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            append(outbox, name, f"{name}-{number}")

    threads = [threading.Thread(target=keep_appending, args=(f"thread{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for child in range(20):
            process = multiprocessing.get_context("fork").Process(
                target=append, args=(outbox, "child", f"child-{child}"), daemon=True
            )
            process.start()
            process.join(30)
            assert process.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    found = set(ids(claim(outbox, count=1_000_000)))
    assert {f"child-{child}" for child in range(20)} <= found


def test_a_schema_from_the_future_is_left_alone(url: str, outbox: Outbox, make_outbox: MakeOutbox) -> None:
    append(outbox, "a", "a")
    with outbox.database.connect() as connection:
        connection.execute(sa.text("INSERT INTO workflow_events_outbox_schema VALUES (999)"))
    with pytest.raises(OutboxUnavailableError, match=r"schema version 999.*upgrade"):
        append(make_outbox(), "a", "b")


def test_a_killed_process_leaves_what_was_accepted(url: str, outbox: Outbox) -> None:
    program = (
        "import os, signal, sys\n"
        "from airflow_workflow_events.outbox.database import OutboxDatabase\n"
        "from airflow_workflow_events.outbox.store import Outbox\n"
        "from tests.events import make_event\n"
        "outbox = Outbox(OutboxDatabase(sys.argv[1]))\n"
        "for number in range(30):\n"
        "    outbox.append(make_event(event_id=f'e{number}'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, url], timeout=60, check=False)
    assert done.returncode == -9
    assert len(claim(outbox)) == 30


@pytest.mark.parametrize("url", ["mysql://user:s3cret@host/db", "sqlite://", "no url"])
def test_a_url_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OutboxDatabase(url)
    assert "s3cret" not in str(caught.value)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    outbox = Outbox(OutboxDatabase("postgresql://tests:s3cret@127.0.0.1:1/db"))
    with pytest.raises(
        OutboxUnavailableError, match=r"tests:\*\*\*@127\.0\.0\.1:1/db cannot be used"
    ) as caught:
        append(outbox, "a", "a")
    assert "s3cret" not in str(caught.value)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/new/outbox.db"))
    append(outbox, "a", "a")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    for file in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_corrupt_file_is_reported_without_the_event(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database, and longer than a header of a hundred bytes" * 100)
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    with pytest.raises(OutboxUnavailableError, match="not a database") as caught:
        outbox.append(make_event(payload={"data": {"a": "canary"}}))
    assert "canary" not in str(caught.value)


def test_a_place_that_cannot_be_written_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutboxUnavailableError, match=r"outbox\.db cannot be used"):
        append(Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/file/outbox.db")), "a", "a")


def test_a_locked_file_is_given_up_soon(tmp_path: Path) -> None:
    outbox = Outbox(OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db"))
    append(outbox, "a", "a")
    locker = sa.create_engine(f"sqlite:///{tmp_path}/outbox.db", isolation_level="AUTOCOMMIT")
    with locker.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(OutboxUnavailableError, match="locked"):
            append(outbox, "a", "b")
        connection.exec_driver_sql("ROLLBACK")
    append(outbox, "a", "b")
    assert outbox.totals().pending == 2
    locker.dispose()
