"""What is wrong with one route or connection delays no other, and is told once, with its cause."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

import pytest
import sqlalchemy as sa

from airflow_workflow_events import WorkflowEvent
from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import (
    ConfigurationError,
    KafkaAuthenticationError,
    KafkaAuthorizationError,
    KafkaConnectionError,
    KafkaError,
    WorkflowEventsError,
)
from airflow_workflow_events.outbox import destinations, troubles
from airflow_workflow_events.outbox.background import MOST_WORKERS, BackgroundRelay
from airflow_workflow_events.outbox.entries import Route
from airflow_workflow_events.outbox.port import Destination
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from tests.contract.outbox.conftest import MakeOutbox
from tests.counting import Counting
from tests.events import make_event
from tests.waiting import await_condition

Answer = Callable[[Sequence[WorkflowEvent], str | None], WorkflowEventsError | None]
RELAY_LOG = "airflow_workflow_events.outbox.relay"


class Scripted:
    """A destination whose answer to each delivery is the test's."""

    environment = None
    topic = "of-the-connection"

    def __init__(self, answer: Answer, delivered: list[str]) -> None:
        self._answer = answer
        self._delivered = delivered
        self.outdated = False
        self.closed = 0

    def deliver(
        self, events: Sequence[WorkflowEvent], topic: str | None, _timeout: float
    ) -> Sequence[WorkflowEventsError | None]:
        error = self._answer(events, topic)
        if error is None:
            self._delivered += [event.event_id for event in events]
        return [error] * len(events)

    def is_outdated(self) -> bool:
        return self.outdated

    def abandon(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        self.closed += 1


class Connections:
    """Opens destinations, and keeps them and what they delivered."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.opened: list[Scripted] = []
        self.delivered: list[str] = []

    def open(self, _conn_id: str | None) -> Destination:
        self.opened.append(Scripted(self._answer, self.delivered))
        return self.opened[-1]


def takes_all(_events: Sequence[WorkflowEvent], _topic: str | None) -> None:
    """Deliver."""


def hanging_until(release: threading.Event) -> Answer:
    """Return what takes the events of the topic ``works``, and hangs with those of any other."""

    def answer(_events: Sequence[WorkflowEvent], topic: str | None) -> WorkflowEventsError | None:
        if topic != "works":
            release.wait(60)
            return KafkaConnectionError("no broker answered")
        return None

    return answer


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of what the relay has said."""
    return [(one.levelno, one.getMessage()) for one in caplog.records if one.name == RELAY_LOG]


@pytest.mark.parametrize("stuck", [1, 10, 2 * MOST_WORKERS + 1])
def test_routes_that_hang_delay_no_other(outbox: Outbox, stuck: int) -> None:
    release = threading.Event()

    for number in range(stuck):
        outbox.append(make_event(event_id=f"stuck{number}"), Route(None, f"stuck{number}"))
    connections = Connections(hanging_until(release))
    background = BackgroundRelay(outbox, Relay(outbox, connections.open), poll_seconds=0.05)
    background.start()
    try:
        for number in range(3):
            # Behind the others: routes are gone through by name.
            assert background.accept(make_event(event_id=str(number)), Route(None, "works"))
            await_condition(
                lambda: len(connections.delivered) > number,  # noqa: B023 - called before the next round
                timeout_seconds=15,
                what="an event of a route that works",
            )
        assert not release.is_set()
    finally:
        release.set()
        assert background.stop(30)
    assert outbox.totals().pending == stuck


def test_a_relay_that_waits_for_its_brokers_says_that_it_lives(make_outbox: MakeOutbox) -> None:
    outbox, release, metrics = make_outbox(), threading.Event(), Counting()

    def answer(_events: Sequence[WorkflowEvent], _topic: str | None) -> WorkflowEventsError | None:
        release.wait(60)
        return None

    def seen_at() -> float:
        with outbox.database.connect() as connection:
            return float(
                connection.execute(sa.text("SELECT max(seen_at) FROM workflow_events_relays")).scalar() or 0
            )

    background = BackgroundRelay(
        outbox, Relay(outbox, Connections(answer).open), metrics=metrics, poll_seconds=0.05
    )
    background.start()
    try:
        background.accept(make_event())
        await_condition(lambda: seen_at() > 0, timeout_seconds=20, what="a first sign of life")
        first = seen_at()
        await_condition(lambda: seen_at() > first, timeout_seconds=20, what="another one")
        assert not release.is_set()
    finally:
        release.set()
        assert background.stop(30)
    assert metrics.gauges[names.OUTBOX_DEPTH] == 0
    assert metrics.gauges[names.RELAYS_AT_WORK] == 0, "it has signed off"


def test_a_changed_connection_is_used_from_the_next_event_on(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections(takes_all)
    relay = Relay(outbox, connections.open)
    for number in range(3):
        outbox.append(make_event(event_id=str(number)))
        assert relay.drain().delivered == 1
    connections.opened[0].outdated = True
    outbox.append(make_event(event_id="before it is looked up"))
    assert relay.drain().delivered == 1
    assert len(connections.opened) == 1
    monkeypatch.setattr(destinations, "_RENEWAL_SECONDS", 0.0)
    outbox.append(make_event(event_id="after"))
    assert relay.drain().delivered == 1
    assert [one.closed for one in connections.opened] == [1, 0]


def test_a_relay_looks_its_connections_up_at_once_when_told_to(outbox: Outbox) -> None:
    connections = Connections(takes_all)
    relay = Relay(outbox, connections.open)
    assert relay.prepare()
    connections.opened[0].outdated = True
    relay.look_again()
    outbox.append(make_event())
    assert relay.drain().delivered == 1
    assert [one.closed for one in connections.opened] == [1, 0]


def test_a_connection_that_cannot_be_looked_up_again_stays_in_use(outbox: Outbox) -> None:
    connections = Connections(takes_all)
    relay = Relay(outbox, connections.open)
    assert relay.prepare()

    def fail() -> bool:
        raise ConnectionError("the secrets backend is away")

    connections.opened[0].is_outdated = fail  # type: ignore[method-assign]
    relay.look_again()
    outbox.append(make_event())
    assert relay.drain().delivered == 1


def test_a_refusal_that_a_producer_remembers_parks_nothing(outbox: Outbox) -> None:
    granted = threading.Event()

    def answer(_events: Sequence[WorkflowEvent], _topic: str | None) -> WorkflowEventsError | None:
        # What was open before the grant goes on saying no, as an idempotent producer does.
        knows_it = granted.is_set() and len(connections.opened) > 1
        return None if knows_it or not refuses.is_set() else KafkaAuthorizationError("not granted")

    refuses = threading.Event()
    connections = Connections(answer)
    relay = Relay(outbox, connections.open)
    outbox.append(make_event(event_id="1"))
    assert relay.drain().delivered == 1
    refuses.set()
    granted.set()
    outbox.append(make_event(event_id="2"))
    done = relay.drain()
    assert (done.delivered, done.parked) == (1, 0)
    assert connections.delivered == ["1", "2"]


def test_what_is_refused_is_parked_by_its_id_and_the_end_of_it_is_told(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RELAY_LOG)
    refuses = threading.Event()
    refuses.set()
    connections = Connections(
        lambda _events, _topic: KafkaAuthorizationError("not granted") if refuses.is_set() else None
    )
    relay = Relay(outbox, connections.open)
    outbox.append(make_event(event_id="of-an-order"), Route(None, "orders"))
    assert relay.drain().parked == 1
    refuses.clear()
    assert outbox.retry_parked("of-an-order") == 1
    assert relay.drain().delivered == 1
    assert told(caplog) == [
        (logging.ERROR, "event of-an-order is parked, connection default, topic orders: not granted"),
        (logging.INFO, "connection default, topic orders takes events again"),
    ]


def test_an_outage_is_a_warning_with_its_cause_and_so_is_one_that_lasts(
    outbox: Outbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, RELAY_LOG)
    monkeypatch.setattr(troubles, "_FIRST_BACKOFF_SECONDS", 0.0)
    away = threading.Event()
    away.set()
    connections = Connections(
        lambda _events, _topic: (
            KafkaError("no such topic", name="_UNKNOWN_TOPIC", retriable=True) if away.is_set() else None
        )
    )
    relay = Relay(outbox, connections.open)
    outbox.append(make_event())
    assert relay.drain().failed == 1
    assert relay.drain().failed == 1
    monkeypatch.setattr(troubles, "monotonic", lambda: monotonic() + 301)
    assert relay.drain().failed == 1
    away.clear()
    assert relay.drain().delivered == 1
    assert [level for level, _ in told(caplog)] == [
        logging.WARNING,
        logging.INFO,
        logging.WARNING,
        logging.INFO,
    ]
    texts = [text for _, text in told(caplog)]
    assert "topic of-the-connection takes no events" in texts[0]
    assert "no such topic" in texts[0]
    assert texts[-1] == "connection default, topic of-the-connection takes events again"


def test_a_first_attempt_without_an_answer_is_a_warning_with_its_cause_before_it_is_given_up(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RELAY_LOG)
    release = threading.Event()

    def answer(_events: Sequence[WorkflowEvent], _topic: str | None) -> None:
        release.wait(60)

    class Explaining(Scripted):
        def trouble(self) -> str:
            return "kafka:9092: connection refused"

    delivered: list[str] = []
    relay = Relay(outbox, lambda _conn_id: Explaining(answer, delivered))
    background = BackgroundRelay(outbox, relay, poll_seconds=0.02, slow_seconds=0.1)
    background.start()
    try:
        assert background.accept(make_event(event_id="a"))
        await_condition(lambda: len(told(caplog)) > 0, timeout_seconds=30, what="a warning")
        assert not delivered
    finally:
        release.set()
        assert background.stop(30)
    (level, warning), (_, end) = told(caplog)
    assert level == logging.WARNING
    assert "connection default, topic of-the-connection has confirmed nothing for" in warning
    assert warning.endswith("kafka:9092: connection refused")
    assert end == "connection default, topic of-the-connection takes events again"
    assert delivered == ["a"]


def test_a_look_ahead_of_the_first_event_warns_of_nothing(
    outbox: Outbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, RELAY_LOG)
    monkeypatch.setattr(troubles, "_FIRST_BACKOFF_SECONDS", 0.0)

    def open_destination(_conn_id: str | None) -> Destination:
        raise ConfigurationError("the connection isn't defined")

    relay = Relay(outbox, open_destination)
    assert not relay.prepare()
    assert told(caplog) == []
    outbox.append(make_event())
    assert relay.drain().reason == "the connection isn't defined"
    [(level, text)] = told(caplog)
    assert level == logging.WARNING
    assert "the connection isn't defined" in text


def test_what_another_route_gave_up_in_the_same_producer_is_attempted_again_at_once(outbox: Outbox) -> None:
    answers: list[WorkflowEventsError | None] = [
        None,
        KafkaError("purged", name="_PURGE_INFLIGHT", retriable=True),
        None,
    ]
    connections = Connections(lambda _events, _topic: answers.pop(0))
    relay = Relay(outbox, connections.open)
    outbox.append(make_event(event_id="1"))
    assert relay.drain().delivered == 1
    outbox.append(make_event(event_id="2"))
    done = relay.drain()
    assert (done.delivered, done.failed) == (1, 0)


def test_a_refused_login_is_tried_again_soon_by_all_routes_of_the_connection(outbox: Outbox) -> None:
    connections = Connections(lambda _events, _topic: KafkaAuthenticationError("wrong password"))
    relay = Relay(outbox, connections.open)
    for topic in ("a", "b"):
        outbox.append(make_event(), Route(None, topic))
    assert relay.drain().failed == 1, "one asked for both"
    assert relay.holds_back(Route(None, "a"))
    assert relay.holds_back(Route(None, "b"))
    assert not relay.holds_back(Route("another", "a"))
    assert troubles.backoff_seconds(50, troubles.REFUSED_BACKOFF_SECONDS) <= 15


def test_routes_share_the_time_that_there_is(outbox: Outbox) -> None:
    granted: dict[str | None, float] = {}

    class Measured(Scripted):
        def deliver(
            self, events: Sequence[WorkflowEvent], topic: str | None, timeout: float
        ) -> Sequence[WorkflowEventsError | None]:
            granted[topic] = timeout
            return super().deliver(events, topic, timeout)

    relay = Relay(outbox, lambda _conn_id: Measured(lambda _events, _topic: KafkaError("no"), []))
    for topic in ("a", "b"):
        outbox.append(make_event(), Route(None, topic))
    relay.drain(deadline=monotonic() + 10)
    assert granted["a"] <= 5, "the first left nothing to the second"
