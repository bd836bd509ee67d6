"""Connections, options, metrics and topics for the tests of what runs inside Airflow."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent
from airflow_workflow_events.events.codec import decode
from airflow_workflow_events.testing.waits import close_what_waits
from tests.airflow_metrics import NoStatsLogger, metrics_go_to
from tests.airflow_names import clear_secrets_backends_cache
from tests.broker import Broker
from tests.unit.airflow_side.connections import Connections


@pytest.fixture(autouse=True)
def _quiet_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may find the supervisor of another, or the deployment's name that another set."""
    from airflow.sdk.execution_time import task_runner

    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)


@pytest.fixture
def set_options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``set_options(topic="a")`` sets ``[workflow_events]`` options, ``section=`` another section's."""

    def set_options(section: str = "workflow_events", **options: object) -> None:
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{name.upper()}", str(value))

    return set_options


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Makes Airflow connections, through the environment."""
    return Connections(monkeypatch)


@pytest.fixture
def event_topic(embedded_broker: Broker) -> str:
    """A topic of the test's own on the embedded broker."""
    name = f"events-{uuid.uuid4()}"
    embedded_broker.create_topic(name)
    return name


@pytest.fixture
def connection(connections: Connections, embedded_broker: Broker, event_topic: str) -> str:
    """The default connection, to the embedded broker and the test's topic; returns its id."""
    return connections.add(
        extra={
            "bootstrap.servers": embedded_broker.bootstrap_servers,
            "topic": event_topic,
            "environment": "test",
            "fetch.wait.max.ms": 50,
        }
    )


@pytest.fixture
def published(
    embedded_broker: Broker, event_topic: str, connection: str
) -> Callable[..., list[WorkflowEvent]]:
    """``published(count=1, topic=None, timeout_seconds=20)``: its events, once there are so many."""

    def published(
        count: int = 1, topic: str | None = None, timeout_seconds: float = 20
    ) -> list[WorkflowEvent]:
        messages = embedded_broker.messages(topic or event_topic, count, timeout_seconds)
        return [decode(message.value(), message.headers()) for message in messages]

    return published


class Counters(NoStatsLogger):
    """A backend of Airflow's metrics that keeps this package's counters."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def incr(  # type: ignore[override]
        self, stat: str, count: int = 1, rate: float = 1, *, tags: Mapping[str, Any] | None = None
    ) -> None:
        if stat.startswith("workflow_events."):
            self.counts[stat, (tags or {})["emitted_by"]] += count


@pytest.fixture
def counters() -> Iterator[Counter[tuple[str, str]]]:
    """Counters by metric and ``emitted_by``."""
    backend = Counters()
    with metrics_go_to(lambda: backend):
        yield backend.counts


@pytest.fixture
def log_of(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], str]]:
    """``log_of("publisher")``: what that module of the package logged, whatever Airflow did to logging."""
    package = logging.getLogger("airflow_workflow_events")
    level, propagate = package.level, package.propagate
    package.setLevel(logging.DEBUG)
    package.propagate = False
    package.addHandler(caplog.handler)

    def log_of(module: str) -> str:
        return "\n".join(
            f"{record.levelname} {record.getMessage()}"
            for record in caplog.records
            if record.name == f"{package.name}.{module}"
        )

    yield log_of
    package.removeHandler(caplog.handler)
    package.setLevel(level)
    package.propagate = propagate


@pytest.fixture
def vault_that_hangs(set_options: Callable[..., None]) -> Iterator[threading.Event]:
    """A secrets backend that does not answer until the test is over; set while it is being asked."""
    from tests.unit.airflow_side.secrets_backends import BlockingBackend

    set_options("secrets", backend=f"{BlockingBackend.__module__}.{BlockingBackend.__name__}")
    clear_secrets_backends_cache()
    BlockingBackend.released.clear()
    BlockingBackend.asked.clear()
    yield BlockingBackend.asked
    BlockingBackend.released.set()
    clear_secrets_backends_cache()
    for thread in threading.enumerate():
        if thread.name == "workflow-events-publish":
            thread.join(10)


@pytest.fixture
def fresh_hubs() -> Iterator[None]:
    """What waits in this process is the test's own: connections of the same name lead elsewhere in others."""
    yield
    close_what_waits()


@pytest.fixture
def own_broker(connections: Connections) -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, behind the default connection, which fails soon when it is away."""
    with EmbeddedBroker(topics={"events": 4}) as broker:
        connections.add(
            extra={
                "bootstrap.servers": broker.bootstrap_servers,
                "topic": "events",
                "connect.timeout.ms": 300,
                "config": {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100},
            }
        )
        yield broker
        close_what_waits()
