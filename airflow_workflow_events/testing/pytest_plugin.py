"""The fixtures, which pytest finds by the entry point ``workflow_events``.

Every pytest run in an environment with this package imports this module: it imports nothing but pytest, and
a fixture loads what it needs when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_workflow_events.kafka.embedded import EmbeddedBroker
    from airflow_workflow_events.testing.airflow_options import AirflowConnections
    from airflow_workflow_events.testing.published import PublishedEvents


@pytest.fixture(scope="session")
def workflow_events_broker() -> Iterator[EmbeddedBroker]:
    """A Kafka broker in this process, for the session; each worker of pytest-xdist has its own.

    Nothing is pointed at it yet. The topic ``workflow-events`` has one partition, so that all events on it
    are in the order in which they were published; others are made on first use, with four partitions.
    """
    from airflow_workflow_events.events.model import DEFAULT_TOPIC
    from airflow_workflow_events.kafka.embedded import EmbeddedBroker

    with EmbeddedBroker(topics={DEFAULT_TOPIC: 1}) as broker:
        yield broker


@pytest.fixture
def _events_since_the_test_began(workflow_events_broker: EmbeddedBroker) -> Iterator[PublishedEvents]:
    from airflow_workflow_events.testing.published import PublishedEvents

    with PublishedEvents(workflow_events_broker.bootstrap_servers) as events:
        yield events


# Both of these note where the test's events begin, so that a fixture which runs a DAG may ask for either.
@pytest.fixture
def workflow_events_connections(
    _events_since_the_test_began: PublishedEvents,
    workflow_events_broker: EmbeddedBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AirflowConnections]:
    """Airflow's connections to the broker, for the test, in environment variables.

    ``workflow_events_default`` is there; ``workflow_events_connections.add("kafka_eu")`` makes another. The
    outbox is off, so that what a callback published is there when the callback ends.
    """
    from airflow_workflow_events.testing.airflow_options import AirflowConnections
    from airflow_workflow_events.testing.waits import close_what_waits

    connections = AirflowConnections(monkeypatch.setenv, workflow_events_broker.bootstrap_servers)
    connections.add()
    connections.set_outbox(None)
    yield connections
    close_what_waits()


@pytest.fixture
def published_events(
    _events_since_the_test_began: PublishedEvents,
    workflow_events_connections: AirflowConnections,  # noqa: ARG001 - so that Airflow publishes to the broker
) -> PublishedEvents:
    """What the test has published, in place of what others did before: a list of events that grows.

    Airflow's connection ``workflow_events_default`` leads to the broker meanwhile.
    """
    return _events_since_the_test_began


@pytest.fixture
def workflow_events_listener(
    workflow_events_connections: AirflowConnections, tmp_path: Path
) -> Iterator[None]:
    """Airflow's listener is on for the test, with an outbox of the test's own.

    A relay's thread delivers what it publishes: await it with ``published_events.wait_for``.
    """
    from airflow_workflow_events.testing.listening import listening

    workflow_events_connections.set_outbox(f"sqlite:///{tmp_path}/workflow-events-outbox.db")
    with listening():
        yield
