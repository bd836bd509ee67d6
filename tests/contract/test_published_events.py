"""What a test has published is there when it was confirmed, complete and in order, on any broker."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from airflow_workflow_events import ConfigurationError, EmbeddedBroker, WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.testing import (
    PublishedEvents,
    broker_down,
    make_event,
    slow_broker,
    topic_reader,
)
from tests.broker import Broker
from tests.events import make_events


@pytest.fixture
def published(broker: Broker, topic: str) -> Iterator[PublishedEvents]:
    with PublishedEvents(broker.bootstrap_servers, topic=topic) as published:
        yield published


@pytest.fixture
def publish(broker: Broker, topic: str) -> Iterator[Callable[..., list[WorkflowEvent]]]:
    """``publish(*events, topic=None)``: publish, await the confirmation, return the events."""
    with WorkflowEventProducer(broker.bootstrap_servers, topic=topic) as producer:

        def publish(*events: WorkflowEvent, topic: str | None = None) -> list[WorkflowEvent]:
            assert all(report.delivered for report in producer.publish_events(events, topic))
            return list(events)

        yield publish


Publish = Callable[..., list[WorkflowEvent]]


def test_it_is_a_list_of_what_was_published(published: PublishedEvents, publish: Publish) -> None:
    assert published == []
    assert not published

    first, second = publish(*make_events(2))

    assert published == [first, second]
    assert [first, second] == published
    assert published != [first]
    assert (len(published), published[-1], published[:1]) == (2, second, [first])
    assert second in published
    assert list(published) == [first, second]
    third = publish(make_event())
    assert published == [first, second, *third], "it grows"


def test_what_was_published_before_is_not_in_it(broker: Broker, topic: str, publish: Publish) -> None:
    publish(*make_events(3))
    with PublishedEvents(broker.bootstrap_servers, topic=topic) as published:
        later = publish(make_event())

        assert published == later


def test_it_can_begin_with_the_oldest(broker: Broker, topic: str, publish: Publish) -> None:
    events = publish(*make_events(3))

    with PublishedEvents(broker.bootstrap_servers, topic=topic, since={}) as published:
        assert published == events


def test_a_topic_that_is_made_later_is_read_from_its_beginning(broker: Broker, publish: Publish) -> None:
    name = f"later-{uuid.uuid4()}"
    with PublishedEvents(broker.bootstrap_servers, topic=name) as published:
        assert published == []
        broker.create_topic(name)
        events = publish(*make_events(2), topic=name)

        assert published == events


def test_runs_that_share_no_partition_are_all_there_each_in_order(
    published: PublishedEvents, publish: Publish
) -> None:
    runs = [make_events(5, workflow_run_id=f"run-{number}") for number in range(8)]
    for run in runs:
        publish(*run)

    assert len(published) == 40
    assert len({message.partition() for message in published.messages()}) > 1
    for run in runs:
        assert [event for event in published if event.workflow_run_id == run[0].workflow_run_id] == run


def test_another_topic_begins_at_the_same_moment(
    broker: Broker, published: PublishedEvents, publish: Publish
) -> None:
    name = f"other-{uuid.uuid4()}"
    broker.create_topic(name)
    publish(make_event(), topic=name)
    with PublishedEvents(broker.bootstrap_servers, topic=published.topic) as fresh:
        events = publish(make_event(), topic=name)

        assert fresh.on(name) == events
        assert fresh.on(name) is fresh.on(name)
        assert fresh.on(fresh.topic) is fresh
        assert fresh == []


def test_events_are_found_by_type(published: PublishedEvents, publish: Publish) -> None:
    done, failed, task = publish(
        make_event(), make_event(event_type="workflow.failed"), make_event(event_type="task.failed")
    )

    assert published.of_type("workflow.*") == [done, failed]
    assert published.of_type("task.failed", "workflow.completed") == [done, task]
    assert published.of_type("task.completed") == []


def test_a_message_shows_its_key_and_place(published: PublishedEvents, publish: Publish) -> None:
    (event,) = publish(make_event())

    (message,) = published.messages()
    assert message.key() == event.ordering_key.encode()
    assert message.topic() == published.topic


def test_what_is_awaited_is_returned_as_soon_as_it_is_there(
    published: PublishedEvents, publish: Publish
) -> None:
    events = make_events(4)
    waiting = threading.Event()

    def later() -> None:
        waiting.wait(10)
        for event in events:
            publish(event)

    thread = threading.Thread(target=later)
    thread.start()
    waiting.set()
    found = published.wait_for(count=2, timeout=30, data={"number": {"$gte": 2}})
    thread.join()

    assert found == events[2:]


def test_every_filter_of_the_consumer_can_be_awaited(published: PublishedEvents, publish: Publish) -> None:
    (wanted, _) = publish(
        make_event(workflow_id="a", workflow_run_id="b", source="c", environment="d", event_type="e.f"),
        make_event(),
    )

    conditions: dict[str, str] = {
        "workflow_id": "a",
        "workflow_run_id": "b",
        "source": "c",
        "environment": "d",
        "event_type": "e.*",
    }
    for name, value in conditions.items():
        assert published.wait_for(**{name: value}) == [wanted]  # type: ignore[arg-type]


def test_awaited_in_vain_it_says_what_came_and_where_else_something_came(
    broker: Broker, published: PublishedEvents, publish: Publish
) -> None:
    other = f"other-{uuid.uuid4()}"
    broker.create_topic(other)
    publish(make_event(data={"rows": 3}))
    publish(*make_events(2), topic=other)

    with pytest.raises(AssertionError) as failure:
        published.wait_for(count=2, timeout=0, event_type="workflow.*", data={"rows": 3})

    text = str(failure.value)
    assert text.startswith("1 of 2 event(s) with event_type='workflow.*', data={'rows': 3} came to ")
    assert "workflow.completed of daily_sales/manual__1, in test: {'rows': 3}" in text
    assert f"{other} (2 message(s))" in text


def test_awaited_in_vain_it_says_when_the_broker_does_not_say_what_came_elsewhere(
    published: PublishedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = published._reader.ends

    def ends_of_one_topic(deadline: float, *, topic: str | None = None) -> dict[tuple[str, int], int]:
        if topic is None:
            raise KafkaConnectionError("too many topics to tell")
        return ends(deadline, topic=topic)

    monkeypatch.setattr(published._reader, "ends", ends_of_one_topic)

    with pytest.raises(AssertionError, match="on other topics: not known; too many topics to tell"):
        published.wait_for(timeout=0)


def test_what_is_no_event_is_left_out_and_named_when_events_are_awaited_in_vain(
    broker: Broker, published: PublishedEvents, publish: Publish
) -> None:
    client = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    client.produce(published.topic, b"not json", partition=1)
    assert client.flush(10) == 0
    events = publish(make_event())

    assert published == events
    assert len(published.messages()) == 1
    with pytest.raises(AssertionError, match=r"and what is no workflow event:\n  \[1\]@0: "):
        published.wait_for(count=2, timeout=0)


def test_many_events_are_listed_in_part(published: PublishedEvents, publish: Publish) -> None:
    publish(*make_events(53))

    with pytest.raises(AssertionError, match=r"53 event\(s\) came in all:\n(?s:.*)  and 3 more"):
        published.wait_for(count=54, timeout=0)


@pytest.mark.parametrize("count", [0, -1])
def test_to_await_nothing_is_a_mistake(published: PublishedEvents, count: int) -> None:
    with pytest.raises(ConfigurationError, match="use 1 or more"):
        published.wait_for(count=count)


def test_a_condition_that_cannot_be_used_is_refused(published: PublishedEvents) -> None:
    with pytest.raises(ConfigurationError, match="event_type"):
        published.wait_for(event_type=[])
    with pytest.raises(ConfigurationError, match="event_type"):
        published.of_type()


def test_it_shows_what_was_read_last_without_reading(published: PublishedEvents, publish: Publish) -> None:
    publish(make_event())

    assert repr(published) == f"<PublishedEvents on {published.topic}: none>"
    assert len(published) == 1
    assert repr(published).endswith(": workflow.completed of daily_sales/manual__1>")


def test_closing_twice_does_nothing_the_second_time(published: PublishedEvents) -> None:
    published.on("other")
    published.close()
    published.close()


def test_events_are_read_when_the_broker_is_back() -> None:
    with EmbeddedBroker() as broker, PublishedEvents(broker.bootstrap_servers) as published:
        with WorkflowEventProducer(broker.bootstrap_servers) as producer:
            producer.publish_event(make_event())
        with broker_down(broker), pytest.raises(AssertionError, match="if a test took it down"):
            published.wait_for(timeout=0)

        assert len(published) == 1


def test_a_broker_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_reader, "READ_SECONDS", 0.2)
    with (
        EmbeddedBroker() as broker,
        broker_down(broker),
        pytest.raises(KafkaConnectionError, match=f"the broker at {broker.bootstrap_servers} did not"),
    ):
        PublishedEvents(broker.bootstrap_servers)


def test_a_slow_broker_is_read_slowly() -> None:
    with EmbeddedBroker() as broker, PublishedEvents(broker.bootstrap_servers) as published:
        with WorkflowEventProducer(broker.bootstrap_servers) as producer:
            producer.publish_event(make_event())
        with slow_broker(broker, round_trip_ms=300):
            assert len(published) == 1
