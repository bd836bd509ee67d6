"""A hub lives as long as somebody waits, sits out what goes wrong, and leaves nobody without an answer."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from airflow_workflow_events import WorkflowEvent, WorkflowEventConsumer
from airflow_workflow_events.errors import ConfigurationError, ConsumerClosedError
from airflow_workflow_events.kafka.hub import EventHub
from airflow_workflow_events.kafka.intake import Intake, ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from tests.broker import Broker
from tests.contract.consuming import QUICK, numbers, publish
from tests.unit.kafka.scripted import Client, Subscriber
from tests.unit.kafka.stage import PLACE, Stage, fail, read
from tests.waiting import await_condition

_SECONDS = 20
_LOGGER = "airflow_workflow_events.kafka.hub"


@pytest.fixture
def topic(embedded_broker: Broker) -> str:
    """A topic of the test's own on the embedded broker."""
    name = f"hub-{uuid.uuid4()}"
    embedded_broker.create_topic(name)
    return name


@pytest.fixture
def open_hub(embedded_broker: Broker, topic: str) -> Iterator[Callable[..., EventHub]]:
    """``open_hub(linger_seconds=30)``: a hub with a thread and a consumer of its own."""
    hubs = []

    def intake() -> Intake:
        return WorkflowEventConsumer(
            embedded_broker.bootstrap_servers, topic=topic, start_from="latest", connect=False, config=QUICK
        ).intake

    def open_hub(**options: Any) -> EventHub:
        hubs.append(EventHub(intake, topic, **options))
        return hubs[-1]

    yield open_hub
    for hub in hubs:
        hub.close()


def await_events(one: Subscriber, count: int) -> list[WorkflowEvent]:
    """The events that a subscriber has got, once there are that many."""
    return await_condition(
        lambda: found if len(found := events_of(one)) >= count else [],
        timeout_seconds=_SECONDS,
        what=f"{count} events",
    )


def events_of(one: Subscriber) -> list[WorkflowEvent]:
    return [delivery.event for delivery in one.received if isinstance(delivery, ReceivedEvent)]


def is_running(topic: str) -> bool:
    return any(topic in thread.name for thread in threading.enumerate())


def test_it_hands_out_what_is_there_and_what_comes(
    embedded_broker: Broker, topic: str, open_hub: Callable[..., EventHub]
) -> None:
    old = publish(embedded_broker, topic, range(3))
    all_of_them, the_new = Subscriber(StartFrom.EARLIEST), Subscriber(StartFrom.LATEST, wants_progress=True)
    hub = open_hub()
    hub.subscribe(the_new.subscription)
    hub.subscribe(all_of_them.subscription)
    await_condition(lambda: the_new.progress, timeout_seconds=_SECONDS, what="it to be served")
    new = publish(embedded_broker, topic, range(3, 6))

    assert numbers(await_events(all_of_them, 6)) == numbers(old + new)
    assert numbers(await_events(the_new, 3)) == numbers(new)


def test_once_it_is_unsubscribed_nothing_comes(
    embedded_broker: Broker, topic: str, open_hub: Callable[..., EventHub]
) -> None:
    hub, gone, other = open_hub(), Subscriber(StartFrom.EARLIEST), Subscriber(StartFrom.EARLIEST)
    hub.subscribe(gone.subscription)
    hub.subscribe(other.subscription)
    publish(embedded_broker, topic, [0])
    await_events(gone, 1)
    await_events(other, 1)

    hub.unsubscribe(gone.subscription)
    publish(embedded_broker, topic, [1])

    await_events(other, 2)
    assert len(events_of(gone)) == len(hub) == 1


def test_it_closes_when_nobody_has_waited_for_a_while(topic: str, open_hub: Callable[..., EventHub]) -> None:
    hub, one = open_hub(linger_seconds=0.3), Subscriber(StartFrom.LATEST, wants_progress=True)
    hub.subscribe(one.subscription)
    await_condition(lambda: one.progress, timeout_seconds=_SECONDS, what="it to be served")
    assert not hub.is_closed
    hub.unsubscribe(one.subscription)
    began = monotonic()

    await_condition(lambda: hub.is_closed, timeout_seconds=_SECONDS, what="the hub to close")
    assert monotonic() - began >= 0.2, "somebody else might have come"
    await_condition(lambda: not is_running(topic), timeout_seconds=_SECONDS, what="its thread to end")
    with pytest.raises(ConsumerClosedError, match=f"the hub of {topic} is closed: make another"):
        hub.subscribe(one.subscription)


def test_it_goes_on_for_whoever_comes_while_it_lingers(
    embedded_broker: Broker, topic: str, open_hub: Callable[..., EventHub]
) -> None:
    hub = open_hub()
    for number in range(3):
        one = Subscriber(StartFrom.EARLIEST)
        hub.subscribe(one.subscription)
        publish(embedded_broker, topic, [number])
        await_events(one, number + 1)
        hub.unsubscribe(one.subscription)

    assert not hub.is_closed


def test_closing_ends_its_thread_and_may_be_repeated(topic: str, open_hub: Callable[..., EventHub]) -> None:
    hub, one = open_hub(), Subscriber(StartFrom.LATEST)
    hub.subscribe(one.subscription)
    assert is_running(topic)

    hub.close()
    hub.close()

    assert hub.is_closed
    assert not is_running(topic)
    with pytest.raises(ConsumerClosedError):
        hub.subscribe(one.subscription)


def test_a_hub_nobody_has_subscribed_at_has_no_thread(topic: str, open_hub: Callable[..., EventHub]) -> None:
    hub = open_hub()

    assert not is_running(topic)
    hub.close()
    assert hub.is_closed


def test_after_an_outage_it_goes_on_where_it_was(stage: Stage) -> None:
    one = stage.subscribe()
    stage.write(2)

    def outage(client: Client) -> None:
        stage.write(3)
        stage.hidden = 2
        fail(client)

    stage.play(read, outage, read, read)

    assert one.offsets == {0: [0, 1, 2, 3, 4]}
    assert len(stage.clients) == 4, "two of them found no broker"


def test_it_waits_twice_as_long_each_time_up_to_a_bound(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    one = stage.subscribe()
    stage.write()

    with caplog.at_level("ERROR", _LOGGER):
        stage.play(fail, fail, fail, fail, read, read)

    assert [record.getMessage() for record in caplog.records if record.name == _LOGGER] == [
        f"waiting for events of topic goes on in {pause} s: the client has failed"
        for pause in ("0.001", "0.002", "0.004", "0.004")
    ]
    assert one.offsets == {0: [0]}


def test_after_it_has_worked_for_a_while_it_begins_anew_with_a_short_pause(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.subscribe()

    def works_for_a_while(client: Client) -> None:
        stage.clock.now += 60

    with caplog.at_level("ERROR", _LOGGER):
        stage.play(fail, fail, works_for_a_while, fail)

    pauses = [record.getMessage().split(" in ")[1].split(":")[0] for record in caplog.records]
    assert pauses == ["0.001 s", "0.002 s", "0.001 s"]


def test_what_nobody_has_foreseen_is_logged_whole_and_sat_out(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    one = stage.subscribe()
    stage.write()

    def surprise(client: Client) -> None:
        raise ZeroDivisionError

    with caplog.at_level("CRITICAL", _LOGGER):
        stage.play(surprise, read, read)

    assert one.offsets == {0: [0]}
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_consumer_that_cannot_be_made_is_told_to_those_who_have_not_begun_alone(stage: Stage) -> None:
    begun = stage.subscribe()
    late: list[Subscriber] = []
    refusal = ConfigurationError("no such connection")

    def fails_and_cannot_be_made(client: Client) -> None:
        late.append(stage.subscribe())
        stage.refusals = [refusal, refusal]
        stage.write()
        fail(client)

    stage.play(read, fails_and_cannot_be_made, read, read)

    assert late[0].errors == [refusal], "told once, and served no more"
    assert not late[0].offsets
    assert (begun.errors, begun.offsets) == ([], {0: [0]}), "it may be put right, and was"


def test_a_hub_whose_subscribers_were_all_refused_closes_at_once(stage: Stage) -> None:
    stage.refusals = [ConfigurationError("no such connection")]
    one = stage.subscribe()

    stage.play()

    assert one.errors
    assert stage.hub.is_closed, "whoever comes next gets an answer of their own"
    assert not stage.hub


def test_an_outage_is_told_to_nobody(stage: Stage) -> None:
    stage.hidden = 3
    one = stage.subscribe(wants_progress=True)

    stage.play(read)

    assert not one.errors
    assert one.progress == [{PLACE: 0}]


def test_partitions_that_a_broker_does_not_know_yet_are_waited_for(stage: Stage) -> None:
    one = stage.subscribe()
    stage.write()
    ends = stage.topic.ends

    def forget_for_a_while(client: Client) -> None:
        stage.topic.ends = {}
        fail(client)

    def opened_again() -> Intake:
        if len(stage.clients) == 2:
            stage.topic.ends = ends
        return stage._open()

    stage.hub._open_intake = opened_again
    stage.play(read, forget_for_a_while, read, read)

    assert one.offsets == {0: [0]}, "not read again from the beginning"
    assert len(stage.clients) == 3
