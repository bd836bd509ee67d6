"""A Kafka that enforces, Airflow's connections to it, and the table of the matrix."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Iterator

import pytest

from airflow_workflow_events.testing.waits import close_what_waits
from tests.broker import Broker
from tests.brokers.certificates import make_certificates
from tests.brokers.jvm import KafkaCluster
from tests.brokers.secure_listener import GRANTED_PREFIX
from tests.contract.consuming import publish
from tests.faults.security.cells import Site
from tests.unit.airflow_side.connections import Connections

ROW = "security_row"


@pytest.fixture(scope="module")
def site(kafka_cluster: KafkaCluster, real_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The session's Kafka, with a topic that holds an event."""
    if kafka_cluster.secure is None:
        pytest.skip("no real Kafka: openssl is not on the PATH")
    topic = f"{GRANTED_PREFIX}{uuid.uuid4()}"
    real_broker.create_topic(topic)
    publish(real_broker, topic, range(1))
    foreign = make_certificates(tmp_path_factory.mktemp("foreign"))
    missing = f"{GRANTED_PREFIX}missing-{uuid.uuid4()}"
    return Site(kafka_cluster.secure, kafka_cluster.bootstrap_servers, foreign, topic, missing)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    close_what_waits()


@pytest.fixture
def everything(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Connections:
    """Airflow's connections; what Airflow did to logging is undone, so that all of it is looked at."""
    package = logging.getLogger("airflow_workflow_events")
    monkeypatch.setattr(package, "propagate", True)
    monkeypatch.setattr(package, "disabled", False)
    return Connections(monkeypatch)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print, in Markdown, what each row came to on how many surfaces, and the longest it took."""
    rows: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for name, value in report.user_properties:
                    if name == ROW and isinstance(value, tuple):
                        cell, surface, outcome, seconds = value
                        rows[cell].append((surface, outcome if report.passed else "FAILED", seconds))
    if not rows:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| Client | Comes to | On surfaces | Longest, seconds |")
    terminalreporter.write_line("|---|---|---|---|")
    for cell, tries in rows.items():
        outcomes = ", ".join(dict.fromkeys(outcome for _, outcome, _ in tries))
        longest = max(seconds for _, _, seconds in tries)
        terminalreporter.write_line(f"| {cell} | {outcomes} | {len(tries)} | {longest:.1f} |")
