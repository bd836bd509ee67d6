"""The consumers in other languages work as they stand in `docs/contract.md`, on a real Kafka."""

from __future__ import annotations

import signal
import uuid
from itertools import count, islice

import pytest
from confluent_kafka import Producer

from airflow_workflow_events import EventType, WorkflowEventProducer
from tests.broker import PARTITIONS, Broker
from tests.contract.murmur2 import partition_of
from tests.docs.snippets import Snippet, all_snippets
from tests.events import make_event
from tests.languages.node import available_node
from tests.programs import require_program
from tests.subprocesses import output_of

CONSUMERS = {snippet.key: snippet for snippet in all_snippets() if snippet.kind == "consumer"}
KCAT, NODE = "In other languages > kcat and jq", "In other languages > JavaScript"

on_real_kafka = pytest.mark.real_kafka


@pytest.fixture
def topic(real_broker: Broker, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own."""
    request.node.user_properties.append(("kafka", real_broker.kind))
    name = f"consumed-{uuid.uuid4()}"
    real_broker.create_topic(name)
    return name


def at(broker: Broker, topic: str, snippet: Snippet) -> str:
    """The snippet's code, for this broker and this topic."""
    assert snippet.code.count("localhost:9092") == snippet.code.count("workflow-events") == 1
    return snippet.code.replace("localhost:9092", broker.bootstrap_servers).replace("workflow-events", topic)


def test_each_consumer_in_the_documents_is_run_by_a_test() -> None:
    assert CONSUMERS.keys() == {KCAT, NODE}


@on_real_kafka
def test_the_line_of_kcat_and_jq_prints_each_failed_workflow_whatever_is_between(
    real_broker: Broker, topic: str
) -> None:
    require_program("kcat")
    require_program("jq")
    kinds = [EventType.WORKFLOW_FAILED, EventType.WORKFLOW_COMPLETED, EventType.TASK_FAILED, "domain.type"]
    events = [
        make_event(workflow_id=f"sales_ü_{number}", event_type=kind) for number in range(3) for kind in kinds
    ]
    with WorkflowEventProducer(real_broker.bootstrap_servers, topic=topic) as producer:
        assert all(report.delivered for report in producer.publish_events(events[:6]))
    raw = Producer({"bootstrap.servers": real_broker.bootstrap_servers})
    for value in (None, b'{"bro', b"[1]", b"\xff", b"7"):
        for partition in range(PARTITIONS):
            raw.produce(topic, value, partition=partition)
    assert raw.flush(30) == 0
    with WorkflowEventProducer(real_broker.bootstrap_servers, topic=topic) as producer:
        assert all(report.delivered for report in producer.publish_events(events[6:]))

    printed = output_of("bash", "-o", "pipefail", "-c", at(real_broker, topic, CONSUMERS[KCAT]))

    assert sorted(printed.splitlines()) == [f"sales_ü_{number}\tworkflow.failed" for number in range(3)]


@on_real_kafka
def test_the_consumer_in_javascript_prints_the_events_of_a_run_each_once(
    real_broker: Broker, topic: str, pytestconfig: pytest.Config
) -> None:
    node = available_node(pytestconfig.rootpath / ".work" / "node")
    first, second = make_event(event_type=EventType.WORKFLOW_STARTED), make_event()
    # In the run's own partition: it is read before the last event.
    others = (make_event(workflow_run_id=f"other_{number}") for number in count())
    partition = partition_of(first.ordering_key.encode(), PARTITIONS)
    other = next(one for one in others if partition_of(one.ordering_key.encode(), PARTITIONS) == partition)
    with WorkflowEventProducer(real_broker.bootstrap_servers, topic=topic) as producer:
        for event in (first, other, first, second):
            assert producer.publish_event(event)

    code = at(real_broker, topic, CONSUMERS[NODE])
    with node.start(code, first.workflow_id, first.workflow_run_id) as process:
        try:
            assert process.stdout is not None
            printed = [line.split() for line in islice(process.stdout, 2)]
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert (rest, errors, process.returncode) == ("", "", 0)
    assert [(kind, event_id) for _, kind, event_id in printed] == [
        ("workflow.started", first.event_id),
        ("workflow.completed", second.event_id),
    ]
