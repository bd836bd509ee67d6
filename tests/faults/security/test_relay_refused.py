"""A relay that is refused says so soon, and goes on by itself once the login or the grant is corrected."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.relay import DELIVERY_SECONDS, Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.relaying import open_destination
from tests.brokers.secure_listener import grant
from tests.events import make_event
from tests.faults.conftest import SCALE_VARIABLE
from tests.faults.security.cells import CANARY, MECHANISMS, Config, Site
from tests.subprocesses import running
from tests.unit.airflow_side.connections import DEFAULT, Connections
from tests.waiting import await_condition

pytestmark = pytest.mark.real_kafka

_FULL = os.environ.get(SCALE_VARIABLE) == "full"
# Of the documentation: how long a correction may take to be taken up.
_CORRECTION_SECONDS = 60
_NEXT_ATTEMPT = re.compile(
    r"takes no events, next attempt in ([\d.]+) s: .*check sasl\.username, sasl\.password"
)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox of the test's own."""
    database = OutboxDatabase(f"sqlite:///{tmp_path}/outbox.db")
    yield Outbox(database)
    database.close()


@contextmanager
def relaying(outbox: Outbox) -> Iterator[BackgroundRelay]:
    """A relay is at work."""
    background = BackgroundRelay(outbox, Relay(outbox, open_destination), poll_seconds=0.05)
    background.start()
    try:
        yield background
    finally:
        assert background.stop(30)


def await_empty(outbox: Outbox, timeout_seconds: float) -> None:
    """Wait until everything was delivered; nothing may be parked."""
    await_condition(lambda: not outbox.totals().pending, timeout_seconds=timeout_seconds, what="the delivery")
    assert outbox.totals().parked == 0


def no_event_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Assert that what is attempted again was told as one warning of the relay, without a line an event."""
    told = [(one.levelno, one.name) for one in caplog.records if one.levelno > logging.INFO]
    assert told == [(logging.WARNING, "airflow_workflow_events.outbox.relay")], caplog.text


@pytest.mark.parametrize("mechanism", MECHANISMS if _FULL else MECHANISMS[:1])
def test_a_wrong_password_ends_an_attempt_early_and_a_corrected_one_is_taken_up_by_itself(
    mechanism: str, site: Site, everything: Connections, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    extra = site.sasl("publisher", mechanism) | {"topic": site.topic}
    everything.add(extra=extra | {"sasl.password": CANARY})
    caplog.set_level(logging.INFO, "airflow_workflow_events")
    began = monotonic()
    with relaying(outbox) as relay:
        for number in range(5):
            relay.accept(make_event(event_id=f"{mechanism}-{number}"))
        await_condition(
            lambda: _NEXT_ATTEMPT.search(caplog.text) is not None,
            timeout_seconds=DELIVERY_SECONDS,
            what="the relay to say why",
        )
        assert monotonic() - began < DELIVERY_SECONDS / 2, "it was known long before"

        everything.add(extra=extra)
        await_empty(outbox, _CORRECTION_SECONDS)
    no_event_is_an_error(caplog)
    for secret in (CANARY, *site.listener.users.values()):
        assert secret not in caplog.text


@pytest.mark.skipif(not _FULL, reason="takes half a minute: FAULTS=full")
def test_a_relay_command_takes_a_corrected_password_up_at_once_on_sighup(
    site: Site, outbox: Outbox, tmp_path: Path
) -> None:
    file, log = tmp_path / "connections.json", tmp_path / "relay.log"
    extra = site.sasl("publisher") | {"topic": site.topic}
    with _relay_command(file, extra | {"sasl.password": CANARY}, outbox, log) as process:
        outbox.append(make_event(event_id="waiting"))
        # Each pause is longer than the one before, so that ending it is told from its end.
        await_condition(
            lambda: max(map(float, _NEXT_ATTEMPT.findall(log.read_text())), default=0) > 7,
            timeout_seconds=180,
            what="a long pause",
        )
        began, pause = monotonic(), float(_NEXT_ATTEMPT.findall(log.read_text())[-1])
        _write(file, extra)
        process.send_signal(signal.SIGHUP)
        await_empty(outbox, _CORRECTION_SECONDS)
        assert monotonic() - began < pause / 2, "it went on by itself"
    assert CANARY not in log.read_text()


@contextmanager
def _relay_command(file: Path, extra: Config, outbox: Outbox, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``airflow workflow-events relay``, which reads its connections from a file each time."""
    _write(file, extra)
    environment = os.environ | {
        "AIRFLOW__WORKFLOW_EVENTS__OUTBOX_URL": f"sqlite:///{outbox.database.place.removeprefix('sqlite:///')}",
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(file)}),
    }
    command = [sys.executable, "-m", "airflow_workflow_events", "relay"]
    with (
        log.open("wb") as output,
        running(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
    assert process.returncode == 0


def _write(file: Path, extra: Config) -> None:
    # Put in place at once: it is read at any moment.
    new = file.with_suffix(".new.json")
    new.write_text(json.dumps({DEFAULT: {"conn_type": "workflow_events", "extra": extra}}))
    new.replace(file)


@pytest.mark.parametrize("before", [(), ("Describe topic {topic}",)] if _FULL else [()], ids=str)
def test_the_first_event_after_a_grant_is_delivered_and_nothing_of_it_is_parked(
    before: tuple[str, ...], site: Site, everything: Connections, outbox: Outbox
) -> None:
    extra = site.as_somebody(*before)
    user = extra["sasl.oauthbearer.config"].removeprefix("principal=")
    everything.add(extra=extra | {"topic": site.topic})
    with relaying(outbox) as relay:
        for number in range(3):  # a producer remembers what it was told
            relay.accept(make_event(event_id=f"refused-{number}"))
            await_condition(
                lambda: outbox.totals().parked > number,  # noqa: B023 - called before the next round
                timeout_seconds=60,
                what="a refusal",
            )
        reasons = {entry.reason for entry in outbox.parked(10)}
        grant(site.open_servers, user, f"Write topic {site.topic}", f"Describe topic {site.topic}")

        relay.accept(make_event(event_id="after"))
        await_condition(lambda: not outbox.totals().pending, timeout_seconds=60, what="the delivery")
        assert {entry.event_id for entry in outbox.parked(10)} == {f"refused-{number}" for number in range(3)}
        assert all("grant the principal" in (reason or "") for reason in reasons)

        assert outbox.retry_parked() == 3
        await_empty(outbox, _CORRECTION_SECONDS)


def test_a_route_of_a_refused_topic_delays_no_other_of_its_connection(
    site: Site, everything: Connections, outbox: Outbox
) -> None:
    everything.add(extra=site.sasl("publisher") | {"topic": site.topic})
    with relaying(outbox) as relay:
        relay.accept(make_event(event_id="refused"), Route(None, "not-granted"))
        relay.accept(make_event(event_id="granted"))
        await_condition(lambda: not outbox.totals().pending, timeout_seconds=60, what="the delivery")
    assert [entry.event_id for entry in outbox.parked(10)] == ["refused"]
