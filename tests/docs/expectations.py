"""What each snippet of the documents does, asserted after it was executed.

Keys are headings; ``(2)`` is the second block under a heading. A snippet without an entry fails a test.
"""

from __future__ import annotations

import ast
import inspect
import logging
import uuid

import httpx

from airflow_workflow_events import EmbeddedBroker, EventType, WorkflowEvent, WorkflowEventProducer
from tests.docs.consumer import CONSUMER
from tests.docs.contract import CONTRACT
from tests.docs.reading import Check, Run
from tests.docs.web import serving
from tests.events import make_event

_SLOW_MS = 2_500


def expect(run: Run, *, published: int | list[WorkflowEvent] = 0, printed: str | None = "") -> None:
    """Assert what came to the topic, as a number or as events in their partitions' order, and to stdout."""
    events = run.published()
    if isinstance(published, int):
        assert len(events) == published
    else:
        assert sorted(event.event_id for event in events) == sorted(event.event_id for event in published)
        assert all(event in published for event in events)
    if printed is not None:
        assert run.printed.strip() == printed


def closed(run: Run) -> bool:
    return repr(run.names["producer"]).endswith("closed>")


def config(run: Run) -> dict[str, object]:
    found: dict[str, object] = run.names["producer"].client_config
    return found


def basic_usage(run: Run) -> None:
    event = run.names["event"]
    expect(run, published=[event], printed="Event published successfully")
    assert event.event_type is EventType.WORKFLOW_COMPLETED
    assert event.payload.data == {"status": "success", "count": 100}
    assert closed(run)


def context_manager(run: Run) -> None:
    expect(run, published=[run.names["event"]])
    assert run.names["event"].workflow_run_id == "run_456"
    assert closed(run)


def default_configuration(run: Run) -> None:
    comment = run.snippet.code.partition("Equivalent to:\n")[2]
    equivalent = "\n".join(line.removeprefix("# ") for line in comment.splitlines())
    arguments = {
        str(keyword.arg): ast.literal_eval(keyword.value)
        for keyword in ast.walk(ast.parse(equivalent))
        if isinstance(keyword, ast.keyword)
    }
    assert len(arguments) == 6
    defaults = inspect.signature(WorkflowEventProducer).parameters
    assert all(defaults[name].default == value for name, value in arguments.items())
    # Where the documented port is taken by somebody else, the address is the test's own.
    with WorkflowEventProducer(**(arguments | {"bootstrap_servers": run.site.servers})) as explicit:
        assert config(run) == explicit.client_config


def custom_configuration(run: Run) -> None:
    in_force = config(run)
    assert in_force["acks"] == "1"
    assert in_force["retries"] == 5
    assert in_force["max.in.flight.requests.per.connection"] == 2
    assert in_force["request.timeout.ms"] == 60_000
    assert in_force["message.timeout.ms"] == 180_000
    assert in_force["enable.idempotence"] is False
    event = make_event()
    assert run.names["producer"].publish_event(event)
    expect(run, published=[event])


def configuration_error(run: Run) -> None:
    assert run.printed.startswith("idempotence is not possible with acks=1")


def any_other_option(run: Run) -> None:
    in_force = config(run)
    assert (in_force["compression.type"], in_force["linger.ms"]) == ("lz4", 20)
    assert in_force["partitioner"] == "murmur2_random"
    event = make_event()
    assert run.names["producer"].publish_event(event)
    expect(run, published=[event])


def published_once(run: Run) -> None:
    assert run.names["success"] is True
    expect(run, published=[run.names["event"]])


def custom_topic(run: Run) -> None:
    assert run.names["success"] is True
    assert run.published("custom-topic") == [run.names["event"]]
    expect(run, published=0)


def return_value(run: Run) -> None:
    event = run.names["event"]
    expect(run, published=[event], printed=None)
    assert run.printed.startswith(f"{event.event_id} is in workflow-events [")
    run.refused()
    failure = run.printed.splitlines()[1]
    assert failure.startswith(f"{event.event_id} was not delivered: TOPIC_AUTHORIZATION_FAILED")
    assert failure.endswith("retriable: False")
    expect(run, published=0, printed=None)


def many_events(run: Run) -> None:
    events = run.names["events"]
    expect(run, published=events, printed=f"{len(events)} of {len(events)} events published")
    assert [report.event_id for report in run.names["reports"]] == [event.event_id for event in events]


def without_waiting(run: Run) -> None:
    assert run.names["report"].delivered
    expect(run, published=[run.names["event"]], printed="doing something else")


def imports_kafka_error(run: Run) -> None:
    assert run.names["KafkaError"].__module__ == "airflow_workflow_events.errors"


def connection_errors(run: Run) -> None:
    assert run.printed.startswith("Failed to connect: no Kafka broker at invalid:9092 answered within 10 s")


def publishing_errors(run: Run) -> None:
    published_once(run)
    run.refused()
    expect(run, published=0, printed="Failed to publish event")
    assert f"event {run.names['event'].event_id} was not delivered to workflow-events" in run.log


def timeout_errors(run: Run) -> None:
    published_once(run)
    run.site.broker.set_round_trip_ms(_SLOW_MS)
    try:
        run.execute()
    finally:
        run.site.broker.set_round_trip_ms(0)
    assert run.printed.strip() == "Publish operation timed out"
    run.names["producer"].flush(timeout=30)
    # The outcome was unknown to the caller; it is the same event that came.
    expect(run, published=[run.names["event"]], printed=None)
    assert f"event {run.names['event'].event_id} was delivered after its caller's timeout" in run.log


def flush(run: Run) -> None:
    future = run.names["producer"].send(event := make_event())
    run.execute()
    assert future.done()
    expect(run, published=[event])


def close(run: Run) -> None:
    assert closed(run)


def two_events(run: Run) -> None:
    expect(run, published=[run.names["event1"], run.names["event2"]])
    assert closed(run)


def one_event(run: Run) -> None:
    expect(run, published=[run.names["event"]])
    assert closed(run)


def makes_a_logger(run: Run) -> None:
    assert isinstance(run.names["logger"], logging.Logger)


def errors_gracefully(run: Run) -> None:
    published_once(run)
    run.refused()
    expect(run, published=0)
    assert f"Failed to publish event {run.names['event'].event_id}" in run.log


def all_events(run: Run) -> None:
    expect(run, published=run.names["events"])
    assert closed(run)


def appropriate_configuration(run: Run) -> None:
    in_force = config(run)
    assert (in_force["acks"], in_force["retries"], in_force["enable.idempotence"]) == ("all", 3, True)


def parses(run: Run) -> None:
    """Assert nothing more: Airflow has parsed the file."""


def airflow_runs(run: Run) -> None:
    assert run.site.airflow.run(run.snippet) == {"nightly_load": "success", "hourly_load": "success"}
    assert sorted((event.workflow_id, event.event_type) for event in run.published()) == [
        ("hourly_load", "orders.loaded"),
        ("nightly_load", "workflow.completed"),
    ]


def fastapi(run: Run) -> None:
    workflow_id = f"workflow-{uuid.uuid4()}"
    with serving(run.names["app"]) as url:
        answer = httpx.post(f"{url}/workflow/trigger", params={"workflow_id": workflow_id}, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"published": True})
    (event,) = run.published()
    assert (event.workflow_id, event.source, event.event_type) == (
        workflow_id,
        "fastapi",
        "workflow.triggered",
    )
    assert event.workflow_run_id.startswith("run_")
    assert event.metadata.environment == "prod"


def asyncio_producer(run: Run) -> None:
    event, events = run.names["event"], run.names["events"]
    expect(run, published=[event, event, *events], printed=None)
    first, second, third = run.printed.splitlines()
    assert (first, second) == ("Event published successfully", f"{len(events)} delivered")
    assert third.startswith("partition ")


def log_at_info(run: Run) -> None:
    log = publish_and_fail(run)
    assert "INFO:airflow_workflow_events.kafka.connection:connected to Kafka at" in log
    assert "ERROR:airflow_workflow_events.kafka.pending:event" in log
    assert "was not delivered to workflow-events: TOPIC_AUTHORIZATION_FAILED" in log
    assert "was delivered to" not in log


def log_at_debug(run: Run) -> None:
    logging.basicConfig()  # as the snippet before, whose configuration ended with it
    log = publish_and_fail(run)
    assert "DEBUG:airflow_workflow_events.kafka.pending:event" in log
    assert "was delivered to workflow-events [" in log
    assert "DEBUG:airflow_workflow_events.kafka.client:producer for" in log


def publish_and_fail(run: Run) -> str:
    """Publish one event and fail to publish another; return what was logged."""
    with EmbeddedBroker() as broker, WorkflowEventProducer(broker.bootstrap_servers) as producer:
        assert producer.publish_event(make_event())
        broker.fail_produce_requests([29])  # TOPIC_AUTHORIZATION_FAILED
        assert not producer.publish_event(make_event())
    return run.log


def tests_passed(run: Run) -> None:
    """Assert that there were tests; they were called after the snippet."""
    assert "def test_" in run.code


def serialization_error(run: Run) -> None:
    assert "payload.data.nodes[0].parent: " in run.printed
    assert "refers back to an object that contains it" in run.printed


def typed_payload(run: Run) -> None:
    data = run.names["payload"].data
    assert data["revenue"] == "99.90"
    assert data["rows"] == 1280
    assert data["finished_at"].endswith("Z")


def connection_pooling(run: Run) -> None:
    expect(run, published=[*run.names["events"]] * 2)


PRODUCER: dict[str, Check] = {
    "Quick Start > Basic Usage": basic_usage,
    "Quick Start > Using Context Manager": context_manager,
    "Producer Configuration > Default Configuration": default_configuration,
    "Producer Configuration > Custom Configuration": custom_configuration,
    "Producer Configuration > Configuration Parameters": configuration_error,
    "Producer Configuration > Any other option": any_other_option,
    "Publishing Events > Basic Publishing": published_once,
    "Publishing Events > Custom Topic": custom_topic,
    "Publishing Events > Custom Timeout": published_once,
    "Publishing Events > Return Value": return_value,
    "Publishing Events > Many events at once": many_events,
    "Publishing Events > Without waiting": without_waiting,
    "Error Handling > Connection Errors": imports_kafka_error,
    "Error Handling > Connection Errors (2)": connection_errors,
    "Error Handling > Publishing Errors": publishing_errors,
    "Error Handling > Timeout Errors": timeout_errors,
    "Connection Management > Flush Pending Messages": flush,
    "Connection Management > Close Producer": close,
    "Connection Management > Context Manager": two_events,
    "Best Practices > 1. Use Context Manager": one_event,
    "Best Practices > 2. Handle Errors Gracefully": makes_a_logger,
    "Best Practices > 2. Handle Errors Gracefully (2)": errors_gracefully,
    "Best Practices > 3. Flush Before Closing": two_events,
    "Best Practices > 4. Reuse Producer Instances": all_events,
    "Best Practices > 5. Use Appropriate Configuration": appropriate_configuration,
    "Integration Examples > Airflow Integration": parses,
    "Integration Examples > Airflow Integration (2)": parses,
    "Integration Examples > Airflow Integration (3)": airflow_runs,
    "Integration Examples > FastAPI Integration": fastapi,
    "Integration Examples > FastAPI Integration (2)": fastapi,
    "asyncio": asyncio_producer,
    "Logging": log_at_info,
    "Logging (2)": log_at_debug,
    "Testing > Unit Tests": tests_passed,
    "Testing > Unit Tests (2)": tests_passed,
    "Testing > Unit Tests (3)": tests_passed,
    "Troubleshooting > Serialization Errors": serialization_error,
    "Troubleshooting > Serialization Errors (2)": typed_payload,
    "Performance Considerations > Batch Publishing": all_events,
    "Performance Considerations > Batch Publishing (2)": all_events,
    "Performance Considerations > Connection Pooling": connection_pooling,
}


def outbox_delivered(run: Run) -> None:
    expect(run, published=[run.names["event"]], printed="True 1 0")


OUTBOX: dict[str, Check] = {"Accept, and relay": outbox_delivered}

#: By document; another document's snippets need only be executed without an error.
CHECKS: dict[str, dict[str, Check]] = {
    "docs/consumer.md": CONSUMER,
    "docs/contract.md": CONTRACT,
    "docs/outbox.md": OUTBOX,
    "docs/producer.md": PRODUCER,
}
