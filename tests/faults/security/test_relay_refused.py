"""A relay that is refused says so soon, and goes on by itself once the login or the grant is corrected."""

from __future__ import annotations

import logging
import re
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
from tests.faults.security.cells import CANARY, MECHANISMS, Site
from tests.unit.airflow_side.connections import Connections
from tests.waiting import await_condition

pytestmark = pytest.mark.real_kafka

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


@pytest.mark.parametrize("mechanism", MECHANISMS[:1])
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


@pytest.mark.parametrize("before", [()], ids=str)
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
