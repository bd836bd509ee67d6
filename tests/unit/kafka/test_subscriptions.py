"""Who waits is found by what they wait for, and is told each event once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_workflow_events.events.filters import EventFilter
from airflow_workflow_events.kafka.intake import ReceivedEvent
from airflow_workflow_events.kafka.positions import StartFrom
from airflow_workflow_events.kafka.subscriptions import Subscription, Subscriptions
from tests.events import make_event
from tests.messages import make_message
from tests.unit.kafka.scripted import TOPIC, Record, Subscriber, moment

_PLACE = (TOPIC, 0)


def received(offset: int = 0, timestamp_ms: int | None = 1_000, **fields: Any) -> ReceivedEvent:
    """An event as it comes out of a topic."""
    taken = Record(0, offset, 0, make_event(**fields)).taken
    assert isinstance(taken, ReceivedEvent)
    return taken._replace(message=make_message(timestamp_ms=timestamp_ms))


def waiting_for(*workflow_ids: str | None, start: Any = StartFrom.LATEST) -> Subscription:
    """A subscription with a filter for each of these workflows."""
    return Subscriber(start, [EventFilter(workflow_id=one) for one in workflow_ids]).subscription


@pytest.fixture
def subscriptions() -> Subscriptions:
    return Subscriptions()


def begun(subscriptions: Subscriptions, *workflow_ids: str | None) -> Subscription:
    """A subscription that is served."""
    one = waiting_for(*workflow_ids)
    subscriptions.add(one)
    assert subscriptions.begin(one)
    return one


def test_an_event_is_wanted_that_matches_one_of_the_filters() -> None:
    one = waiting_for("orders", "billing")

    assert one.wants(received(workflow_id="orders"))
    assert one.wants(received(workflow_id="billing"))
    assert not one.wants(received(workflow_id="stock"))


def test_an_event_from_before_its_position_is_not_wanted_again() -> None:
    one = waiting_for(None)
    one.positions = {_PLACE: 5}

    assert not one.wants(received(offset=4))
    assert one.wants(received(offset=5))


@pytest.mark.parametrize(("timestamp_ms", "is_wanted"), [(1_999, False), (2_000, True), (None, True)])
def test_an_event_counts_from_the_moment_on_or_where_its_record_has_no_time(
    timestamp_ms: int | None, is_wanted: bool
) -> None:
    one = waiting_for(None, start=moment(2_000))

    assert one.wants(received(timestamp_ms=timestamp_ms)) is is_wanted


def test_a_moment_within_a_millisecond_counts_from_that_millisecond_on() -> None:
    one = waiting_for(None, start=moment(2_000) + dt.timedelta(microseconds=700))

    assert one.wants(received(timestamp_ms=2_000)), "records have milliseconds only"


def test_who_is_left_behind_wants_nothing() -> None:
    one = waiting_for(None)
    one.is_left_behind = True

    assert not one.wants(received())


def test_the_workflows_are_known_unless_one_filter_leaves_them_open() -> None:
    assert waiting_for("orders", "billing").workflow_ids == frozenset({"orders", "billing"})
    assert waiting_for("orders", "bill*").workflow_ids is None
    assert waiting_for("orders", None).workflow_ids is None


def test_it_is_served_as_far_as_the_hub_is_and_no_less_far_than_it_was() -> None:
    one = waiting_for(None)
    one.positions = {_PLACE: 7, (TOPIC, 2): 3}

    assert one.served_to({_PLACE: 5, (TOPIC, 1): 4}) == {_PLACE: 7, (TOPIC, 1): 4, (TOPIC, 2): 3}


def test_nobody_is_found_before_they_have_begun(subscriptions: Subscriptions) -> None:
    one = waiting_for("orders")
    subscriptions.add(one)

    assert (subscriptions.new(), subscriptions.waiting_for("orders")) == ([one], [])
    assert subscriptions.begin(one)
    assert (subscriptions.new(), subscriptions.waiting_for("orders")) == ([], [one])


def test_the_new_are_told_in_the_order_in_which_they_came(subscriptions: Subscriptions) -> None:
    many = [waiting_for("orders") for _ in range(20)]
    for one in many:
        subscriptions.add(one)

    assert subscriptions.new() == many


def test_only_those_are_found_for_whom_an_event_may_be(subscriptions: Subscriptions) -> None:
    orders, both, globbed = (
        begun(subscriptions, "orders"),
        begun(subscriptions, "orders", "billing"),
        begun(subscriptions, "b*"),
    )

    assert set(subscriptions.waiting_for("orders")) == {orders, both, globbed}
    assert set(subscriptions.waiting_for("billing")) == {both, globbed}
    assert subscriptions.waiting_for("stock") == [globbed], "a glob may match anything"


def test_who_is_removed_is_found_no_more_and_may_be_removed_again(subscriptions: Subscriptions) -> None:
    gone, other, globbed = (
        begun(subscriptions, "orders", "billing"),
        begun(subscriptions, "orders"),
        begun(subscriptions, "*"),
    )

    for _ in range(2):
        subscriptions.remove(gone)
        subscriptions.remove(globbed)
        assert subscriptions.waiting_for("orders") == [other]
        assert subscriptions.waiting_for("billing") == []
        assert subscriptions.everybody() == subscriptions.served() == [other]
        assert len(subscriptions) == 1


def test_nothing_is_kept_of_workflows_that_nobody_waits_for_any_more(subscriptions: Subscriptions) -> None:
    for number in range(100):
        subscriptions.remove(begun(subscriptions, f"workflow_{number}"))

    assert not subscriptions._by_workflow


def test_who_was_removed_before_it_began_does_not_begin(subscriptions: Subscriptions) -> None:
    one = waiting_for("orders")
    subscriptions.add(one)
    subscriptions.remove(one)

    assert not subscriptions.begin(one)
    assert not subscriptions.waiting_for("orders")


def test_who_is_left_behind_goes_on_with_that_event_once_it_has_taken_up_what_it_had(
    subscriptions: Subscriptions,
) -> None:
    slow = Subscriber(StartFrom.LATEST)
    subscriptions.add(slow.subscription)
    subscriptions.begin(slow.subscription)
    slow.subscription.deliver([received(3)])

    subscriptions.leave_behind(slow.subscription, {_PLACE: 4, (TOPIC, 1): 9}, received(4))

    assert slow.subscription.positions == {_PLACE: 4, (TOPIC, 1): 9}
    assert (subscriptions.served(), subscriptions.ready()) == ([], [])
    slow.take_up()
    assert subscriptions.ready() == [slow.subscription]
    subscriptions.catch_up([slow.subscription])
    assert (subscriptions.served(), subscriptions.ready()) == ([slow.subscription], [])
    assert slow.subscription.wants(received(4))


def test_who_was_removed_is_not_left_behind(subscriptions: Subscriptions) -> None:
    one = begun(subscriptions, "orders")
    subscriptions.remove(one)

    subscriptions.leave_behind(one, {}, received(4))

    assert not subscriptions.ready()
