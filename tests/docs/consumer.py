"""What the Python snippets of ``docs/consumer.md`` do, asserted after they were executed."""

from __future__ import annotations

import os
import signal
from typing import Any

from airflow_workflow_events import EventType, WorkflowEventMetadata
from tests.broker import headers_of
from tests.docs.reading import Check, Run
from tests.events import make_event


def publish_again(run: Run, *events: Any) -> str:
    """Publish events and execute the snippet once more; return what it printed then."""
    for event in events:
        assert run.names["producer"].publish_event(event)
    before = len(run.printed)
    run.execute()
    return run.printed[before:]


def quick_start(run: Run) -> None:
    event = make_event(payload={"data": {"number": 7}})
    assert "workflow.completed daily_sales manual__1 {'number': 7}" in publish_again(run, event)
    assert publish_again(run) == "", "the group has read everything"


def service(run: Run) -> None:
    event = make_event()
    genuine = run.names["handle"]

    def handle(handled: Any) -> None:
        genuine(handled)
        if handled == event:
            os.kill(os.getpid(), signal.SIGTERM)

    run.names["handle"] = handle
    assert run.names["producer"].publish_event(event)
    run.names["main"]()
    assert run.printed.splitlines()[-1] == f"handling {event.event_id}"


def groups(run: Run) -> None:
    printed = publish_again(run, make_event(workflow_run_id="a"), make_event(workflow_run_id="b"))
    assert {("daily_sales", "a"), ("daily_sales", "b")} <= run.names["runs"]
    assert printed == f"{len(run.names['runs'])} runs\n"


def where_to_begin(run: Run) -> None:
    before = int(run.printed.split()[0])
    assert int(publish_again(run, make_event()).split()[0]) == before + 1


def filters(run: Run) -> None:
    wanted: dict[str, Any] = {
        "workflow_id": "sales_eu",
        "event_type": EventType.WORKFLOW_FAILED,
        "metadata": WorkflowEventMetadata(environment="prod"),
    }
    match = make_event(**wanted, payload={"data": {"country": "DE", "rows": 100}})
    publish_again(
        run,
        match,
        make_event(**wanted, payload={"data": {"country": "DE", "rows": 99}}),
        make_event(**(wanted | {"workflow_id": "billing"}), payload={"data": {"country": "DE", "rows": 100}}),
    )
    assert run.names["failed"] == [match]


def dead_letters(run: Run) -> None:
    assert run.printed == "1 dead letters\n"
    (letter,) = run.site.topics.new("workflow-events-dead")
    assert (letter.key(), letter.value()) == (b"k", b"no event")
    assert headers_of(letter)["dead_letter_group"] == b"audit"


def retries(run: Run) -> None:
    run.site.topics.new("workflow-events-dead")
    events = [make_event(payload={"data": {"number": number}}) for number in (1, 3)]
    printed = publish_again(run, *events)
    assert printed == "loaded {'number': 1}\n1 events handled\n"
    assert run.log.count("ConnectionError: the database is away") >= 3
    (letter,) = run.site.topics.new("workflow-events-dead")
    assert headers_of(letter)["dead_letter_attempts"] == b"3"


def events_that_come_twice(run: Run) -> None:
    event = make_event()
    assert publish_again(run, event, event) == "1 events, 1 repeated\n"


def commits_by_hand(run: Run) -> None:
    assert publish_again(run, *(make_event() for _ in range(4))).count("wrote 2") >= 2


def where_an_event_was_read(run: Run) -> None:
    topic, partition, offset, event_id = publish_again(run, make_event()).split()
    assert topic == "workflow-events"
    assert partition.isdigit()
    assert offset.isdigit()
    assert event_id


def in_asyncio(run: Run) -> None:
    event = make_event()
    publish_again(run, event)
    assert run.names["ids"] == [event.event_id]


def errors(run: Run) -> None:
    assert run.printed == "start_from is 'committed', but without a group_id nothing is committed\n"


def testing(run: Run) -> None:
    assert "test_the_report_counts_events" in run.names, "and was called"


CONSUMER: dict[str, Check] = {
    "Quick Start": quick_start,
    "Quick Start (2)": service,
    "Groups": groups,
    "Where to begin": where_to_begin,
    "Filters": filters,
    "Poison and dead letters": dead_letters,
    "Handlers and retries": retries,
    "Events that come twice": events_that_come_twice,
    "Commits by hand": commits_by_hand,
    "Where an event was read": where_an_event_was_read,
    "asyncio": in_asyncio,
    "Errors": errors,
    "Testing": testing,
}
