"""With an outbox, what a callback or an operator hands over survives an outage of Kafka."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import ConfigurationError, EmbeddedBroker, WorkflowEvent, relaying
from airflow_workflow_events import metrics as names
from airflow_workflow_events.errors import KafkaConnectionError
from airflow_workflow_events.operators import PublishWorkflowEventOperator
from airflow_workflow_events.outbox.background import BackgroundRelay
from airflow_workflow_events.outbox.entries import Bounds
from airflow_workflow_events.outbox.relay import Relay
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.publisher import Publication
from airflow_workflow_events.settings import Settings
from tests.airflow_names import COMMAND
from tests.broker import Broker, embedded, event_of
from tests.events import make_event
from tests.subprocesses import running
from tests.unit.airflow_side.connections import Connections
from tests.unit.airflow_side.contexts import dag_context, task_context
from tests.unit.airflow_side.lifecycle.test_translate import event_of as event_of_context
from tests.waiting import await_condition

Counts = Counter[tuple[str, str]]
LogOf = Callable[[str], str]
Published = Callable[..., list[WorkflowEvent]]
SetOptions = Callable[..., None]

CALLBACK = Publication(emitted_by="callback")


@pytest.fixture
def outbox(tmp_path: Path, set_options: SetOptions, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """The outbox of the options."""
    monkeypatch.setattr(relaying, "_spared_until", {})
    set_options(outbox_url=f"sqlite:///{tmp_path}/outbox.db")
    found = relaying.outbox_of(Settings.load())
    assert found is not None
    return found


@pytest.fixture
def dead_connection(connections: Connections) -> str:
    """The default connection, to a port where nobody listens."""
    return connections.add(host="127.0.0.1", port=1, extra={"connect.timeout.ms": 300})


def test_without_the_option_there_is_no_outbox() -> None:
    assert relaying.outbox_of(Settings.load()) is None


def test_a_callback_delivers_by_way_of_the_outbox_where_no_relay_is_at_work(
    outbox: Outbox, connection: str, published: Published, counters: Counts, log_of: LogOf
) -> None:
    assert CALLBACK.publish(dag_context()) is True
    (event,) = published()
    assert event.event_id == event_of_context(dag_context()).event_id
    assert event.metadata.environment == "test", "the connection's"
    assert outbox.totals().pending == 0
    assert counters == {(names.ACCEPTED, "callback"): 1, (names.PUBLISHED, "callback"): 1}
    assert "published by way of the outbox" in log_of("publisher")


def test_a_callback_leaves_the_delivery_to_a_relay_that_is_at_work(
    outbox: Outbox, connection: str, published: Published, counters: Counts, log_of: LogOf
) -> None:
    outbox.beat("host:1", "host", 1)
    assert CALLBACK.publish(dag_context()) is True
    assert outbox.totals().pending == 1
    assert published(0) == []
    assert counters == {(names.ACCEPTED, "callback"): 1}
    assert "is in the outbox, and a relay delivers it" in log_of("publisher")
    relay = Relay(outbox, relaying.open_destination)
    assert relay.drain().delivered == 1
    relay.close()
    assert published()[0].metadata.environment == "test"


def test_a_callback_needs_no_kafka_and_waits_for_it_once(
    outbox: Outbox, dead_connection: str, counters: Counts
) -> None:
    publication = Publication(emitted_by="callback", timeout_seconds=1.0)
    assert publication.publish(dag_context()) is True
    started = time.monotonic()
    for number in range(5):
        assert publication.publish(task_context(map_index=number)) is True
    assert time.monotonic() - started < 4, "each waited for the broker again"
    assert outbox.totals().pending == 6
    assert counters == {(names.ACCEPTED, "callback"): 6}


def test_a_callback_says_that_nothing_delivers_what_it_handed_over(
    outbox: Outbox, dead_connection: str, log_of: LogOf, caplog: pytest.LogCaptureFixture
) -> None:
    assert Publication(emitted_by="callback", timeout_seconds=4.0).publish(dag_context()) is True
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(told) == 1
    text = told[0].getMessage()
    assert "waits in the outbox (no broker confirmed it within" in text
    assert "Connection refused" in text
    assert "no relay is at work: turn [workflow_events] listener on, or run" in text
    assert "a relay delivers it" not in text


def test_a_callback_delivers_what_others_have_left_where_no_relay_is_at_work(
    outbox: Outbox, connection: str, published: Published
) -> None:
    outbox.append(make_event(event_id="stranded"))
    assert CALLBACK.publish(dag_context()) is True
    assert "stranded" in {event.event_id for event in published(2)}
    assert outbox.totals().pending == 0


def test_a_cluster_that_is_away_keeps_no_callback_from_another(
    outbox: Outbox, connection: str, connections: Connections, published: Published, log_of: LogOf
) -> None:
    away = connections.add("a_is_away", host="127.0.0.1", port=1, extra={"connect.timeout.ms": 300})
    run = dag_context()
    assert Publication(emitted_by="callback", conn_id=away, timeout_seconds=1.0).publish(run) is True
    assert Publication(emitted_by="callback", event_type="orders.loaded").publish(run) is True
    assert [event.event_type for event in published()] == ["orders.loaded"]
    assert "published by way of the outbox" in log_of("publisher")
    assert outbox.totals().pending == 1


def test_whoever_appends_where_no_relay_is_at_work_reports_the_gauges(
    outbox: Outbox, dead_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauges: dict[str, float] = {}
    monkeypatch.setattr(relaying.METRICS, "gauge", gauges.__setitem__)
    monkeypatch.setattr(relaying, "_next_gauges", 0.0)
    assert Publication(emitted_by="callback", timeout_seconds=1.0).publish(dag_context()) is True
    age = gauges.pop(names.OUTBOX_OLDEST_AGE)
    assert age >= 0
    assert gauges == {names.OUTBOX_DEPTH: 1, names.OUTBOX_PARKED: 0, names.RELAYS_AT_WORK: 0}


def test_a_relay_takes_up_a_connection_that_was_changed(
    outbox: Outbox, connections: Connections, connection: str, published: Published
) -> None:
    with EmbeddedBroker(topics={"workflow-events": 1}) as another:
        relay = Relay(outbox, relaying.open_destination)
        outbox.append(make_event(event_id="1"))
        assert relay.drain().delivered == 1
        relay.look_again()
        outbox.append(make_event(event_id="2"))
        assert relay.drain().delivered == 1
        assert {event.event_id for event in published(2)} == {"1", "2"}, "unchanged: the producer stays"
        connections.add(extra={"bootstrap.servers": another.bootstrap_servers})
        relay.look_again()
        outbox.append(make_event(event_id="3"))
        assert relay.drain().delivered == 1
        [message] = embedded(another).messages("workflow-events", 1)
        relay.close()
    assert event_of(message).event_id == "3"


def test_an_event_of_a_listener_and_of_a_callback_is_in_the_outbox_once(
    outbox: Outbox, connection: str, published: Published
) -> None:
    outbox.beat("host:1", "host", 1)
    assert CALLBACK.publish(dag_context())
    assert Publication(emitted_by="notifier").publish(dag_context())
    assert outbox.totals().pending == 1


def test_without_a_usable_outbox_a_callback_publishes_directly(
    tmp_path: Path,
    set_options: SetOptions,
    connection: str,
    published: Published,
    counters: Counts,
    log_of: LogOf,
) -> None:
    (tmp_path / "broken.db").write_bytes(b"this is no database at all, though it is long enough" * 100)
    set_options(outbox_url=f"sqlite:///{tmp_path}/broken.db")
    assert CALLBACK.publish(dag_context()) is True
    assert len(published()) == 1
    assert counters == {(names.OUTBOX_ERRORS, "callback"): 1, (names.PUBLISHED, "callback"): 1}
    assert "was not accepted by the outbox" in log_of("relaying")


def test_with_a_full_outbox_a_callback_publishes_directly(
    outbox: Outbox, set_options: SetOptions, connection: str, published: Published, counters: Counts
) -> None:
    set_options(outbox_max_rows=1)
    outbox.append(make_event())
    assert CALLBACK.publish(dag_context()) is True
    assert len(published()) == 1
    assert counters == {(names.DROPPED, "callback"): 1, (names.PUBLISHED, "callback"): 1}


def execute(**options: Any) -> dict[str, Any]:
    operator = PublishWorkflowEventOperator(
        task_id="publish", event_type="orders.loaded", timeout=1, **options
    )
    context: Any = task_context()
    return operator.execute(context)


def test_an_operator_may_have_what_kafka_does_not_take_accepted_by_the_outbox(
    outbox: Outbox, dead_connection: str, counters: Counts
) -> None:
    result = execute(on_failure="outbox", topic="orders")
    assert (result["topic"], result["partition"], result["offset"]) == ("orders", None, None)
    [route] = outbox.routes()
    [entry] = outbox.claim(route, "test", lease_seconds=60, count=10)
    assert (entry.event_id, entry.environment_is_default) == (result["event_id"], False)
    assert route == (None, "orders")
    assert counters == {(names.ACCEPTED, "operator"): 1}


def test_who_names_the_default_connection_and_who_names_none_share_a_route(
    outbox: Outbox, dead_connection: str
) -> None:
    # Only within a route do the events of a run keep their order.
    outbox.beat("host:1", "host", 1)
    assert CALLBACK.publish(task_context())
    execute(on_failure="outbox")
    assert Publication(emitted_by="callback", conn_id="workflow_events_default").publish(dag_context())
    assert outbox.routes() == [(None, None)]


def test_an_operator_fails_where_the_outbox_does_not_accept_the_event_either(
    tmp_path: Path, set_options: SetOptions, dead_connection: str
) -> None:
    (tmp_path / "file").touch()
    set_options(outbox_url=f"sqlite:///{tmp_path}/file/outbox.db")
    with pytest.raises(KafkaConnectionError):
        execute(on_failure="outbox")


def test_an_operator_fails_by_default(outbox: Outbox, dead_connection: str) -> None:
    with pytest.raises(KafkaConnectionError):
        execute()
    assert outbox.totals().pending == 0


def test_an_operator_that_needs_an_outbox_says_so_where_there_is_none(connection: str) -> None:
    with pytest.raises(ConfigurationError, match=r"set \[workflow_events\] outbox_url"):
        execute(on_failure="outbox")
    with pytest.raises(ConfigurationError, match="on_failure is 'ignore'"):
        execute(on_failure="ignore")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("outbox_max_rows", "0"),
        ("outbox_max_bytes", "many"),
        ("outbox_max_age_hours", "inf"),
        ("outbox_max_rows", "1e30"),
        ("outbox_when_full", "explode"),
    ],
)
def test_a_bound_that_cannot_be_is_told_by_name_and_is_its_default(
    set_options: SetOptions, option: str, value: str
) -> None:
    set_options(**{option: value})
    settings = Settings.load()
    [mistake] = settings.mistakes
    assert mistake.startswith(f"[workflow_events] {option} is '{value}': use")
    assert settings.outbox_bounds == Bounds()


def test_the_bounds_are_options(set_options: SetOptions) -> None:
    set_options(
        outbox_max_rows=5, outbox_max_bytes=6, outbox_max_age_hours="0.5", outbox_when_full="drop_oldest"
    )
    assert Settings.load().outbox_bounds == Bounds(5, 6, 1_800, "drop_oldest")


def test_the_settings_do_not_show_the_outboxs_password(set_options: SetOptions) -> None:
    set_options(outbox_url="postgresql://airflow:s3cret@host/db")
    assert "s3cret" not in repr(Settings.load())


def airflow(*arguments: str) -> list[str]:
    return [*COMMAND, *arguments]


def test_the_commands_relay_and_show_and_mend_what_is_parked(
    outbox: Outbox, connection: str, embedded_broker: Broker, published: Published
) -> None:
    outbox.append(make_event(event_id="waiting"))
    outbox.append(make_event(event_id="bad"))
    entries = outbox.claim(outbox.routes()[0], "test", lease_seconds=60, count=2)
    outbox.settle("test", retried=[(entries[0].seq, None, 0)], parked=[(entries[1].seq, "not authorised")])

    def output(*arguments: str) -> str:
        done = subprocess.run(
            airflow(*arguments), capture_output=True, text=True, timeout=120, check=True, env=os.environ
        )
        return done.stdout

    shown = output("outbox").splitlines()
    assert [
        line.split(maxsplit=1)[1] for line in shown if line.startswith(("pending", "parked", "relays"))
    ] == [
        "1",
        "1",
        "none is at work",
    ]
    assert "bad  workflow.completed  daily_sales/manual__1  not authorised" in output("parked")
    assert "1 event(s) will be attempted again" in output("retry", "--event-id", "bad")
    assert "0 event(s) were removed" in output("discard", "--yes")
    with running(airflow("relay"), env=os.environ, stdout=subprocess.DEVNULL) as process:
        assert {event.event_id for event in published(2, timeout_seconds=90)} == {"waiting", "bad"}
        process.terminate()
    assert process.returncode == 0
    assert outbox.totals() == (0, 0, 0, None)
    assert outbox.relays(60) == []


def test_a_relay_delivers_what_was_accepted_during_an_outage(
    outbox: Outbox,
    connections: Connections,
    set_options: SetOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def warnings() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.levelno > logging.INFO]

    with EmbeddedBroker(topics={"workflow-events": 4}) as broker:
        connections.add(
            extra={"bootstrap.servers": broker.bootstrap_servers, "reconnect.backoff.max.ms": 100}
        )
        broker.take_down()
        assert Publication(emitted_by="callback", timeout_seconds=0.5).publish(dag_context())
        for number in range(3):
            outbox.append(make_event(event_id=f"another-{number}"))
        # It gives up its first attempt while the broker is still away.
        relay = BackgroundRelay(outbox, Relay(outbox, relaying.open_destination, delivery_seconds=0.5))
        relay.start()
        await_condition(
            lambda: any("takes no events" in one.getMessage() for one in warnings()),
            timeout_seconds=20,
            what="a first attempt",
        )
        broker.bring_up()
        messages = embedded(broker).messages("workflow-events", 4, timeout_seconds=60)
        assert event_of_context(dag_context()).event_id in {event_of(one).event_id for one in messages}
        assert relay.stop(20)
    # The events are safe in the outbox: that they could not be delivered for a while is one warning of the
    # relay, and no error; of librdkafka's lines, or about each event, there is none.
    assert [(one.levelname, one.name.rpartition(".")[2]) for one in warnings()] == [
        ("WARNING", "publisher"),
        ("WARNING", "relay"),
    ]
