"""Brokers, topics, and the line that says what ran on a real Kafka."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import tests.airflow_home  # noqa: F401 - before anything imports Airflow, which reads its home once

# isort: split

import pytest
from hypothesis import HealthCheck, settings

from airflow_workflow_events import EmbeddedBroker
from tests import broker as brokers
from tests.broker import Broker, Consume
from tests.brokers.jvm import KafkaCluster, KafkaStartError, KafkaUnavailable, SecureListener, kafka_jars
from tests.databases import PostgreSQL

#: Addresses of a Kafka to test against instead of starting one.
SERVERS_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
#: Set to 1 where a test that cannot run on a real Kafka must fail rather than be skipped.
REQUIRED_VARIABLE = "REQUIRE_REAL_KAFKA"

# Deadlines are about time, which a shared machine does not keep.
_PROPERTIES = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], print_blob=True
)
settings.register_profile("quick", _PROPERTIES, max_examples=20)
settings.register_profile("full", _PROPERTIES, max_examples=400)
settings.load_profile("full" if os.environ.get("CI") else "quick")

_MARKER = "real_kafka"
_DESELECTED = pytest.StashKey[int]()


@contextmanager
def running_cluster(pytestconfig: pytest.Config, directory: Path, **options: Any) -> Iterator[KafkaCluster]:
    """Run brokers of a test's own; skip the test, or fail where real Kafka is required, if there are none."""
    try:
        cluster = KafkaCluster(
            kafka_jars(pytestconfig.rootpath / ".work" / "kafka-jars"), directory, **options
        )
        cluster.start()
    except KafkaUnavailable as error:
        _not_available(str(error))
    except KafkaStartError as error:
        _not_available(f"the broker did not start: {error}")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def kafka_cluster(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """One real broker for the session, with an open and, where openssl is at hand, a secure listener."""
    directory = tmp_path_factory.mktemp("kafka")
    with running_cluster(pytestconfig, directory, secure=shutil.which("openssl") is not None) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def real_broker(request: pytest.FixtureRequest) -> Broker:
    """The Kafka at ``KAFKA_BOOTSTRAP_SERVERS``, or else one that the session starts."""
    servers = os.environ.get(SERVERS_VARIABLE)
    if servers:
        return brokers.real(servers, "external")
    cluster: KafkaCluster = request.getfixturevalue("kafka_cluster")
    return brokers.real(cluster.bootstrap_servers, "jvm")


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    """One embedded broker for the session; a test that disturbs a broker starts its own."""
    with EmbeddedBroker() as broker:
        yield brokers.embedded(broker)


@pytest.fixture(scope="session")
def best_broker(request: pytest.FixtureRequest) -> Broker:
    """A real broker where one can be had, else the embedded one."""
    try:
        found: Broker = request.getfixturevalue("real_broker")
    except pytest.skip.Exception:
        found = request.getfixturevalue("embedded_broker")
    return found


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real_kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """The embedded broker and a real one in turn, so that each test of the contract runs on both."""
    found: Broker = request.getfixturevalue(f"{request.param}_broker")
    request.node.user_properties.append(("kafka", found.kind))
    return found


@pytest.fixture
def secure_listener(kafka_cluster: KafkaCluster, request: pytest.FixtureRequest) -> SecureListener:
    """The real broker's SASL_SSL listener."""
    if kafka_cluster.secure is None:
        _not_available("openssl is not on the PATH")
    request.node.user_properties.append(("kafka", "jvm"))
    return kafka_cluster.secure


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for the session."""
    server = PostgreSQL()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def topic(broker: Broker) -> str:
    """A topic of the test's own, with four partitions."""
    name = f"events-{uuid.uuid4()}"
    broker.create_topic(name)
    return name


@pytest.fixture
def consume(broker: Broker) -> Consume:
    """``consume(topic, count, timeout_seconds=20)``: see :meth:`tests.broker.Broker.messages`."""
    return broker.messages


def pytest_runtest_call(item: pytest.Item) -> None:
    """Note on which Kafka a test runs that asks for the real one."""
    found = getattr(item, "funcargs", {}).get("real_broker")
    if isinstance(found, Broker):
        item.user_properties.append(("kafka", found.kind))


def _not_available(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED_VARIABLE) == "1":
        pytest.fail(f"{REQUIRED_VARIABLE}=1, but {reason}", pytrace=False)
    pytest.skip(f"no real Kafka: {reason}")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the real-Kafka tests that were not asked for."""
    for item in items:
        if _MARKER in item.keywords:
            item.config.stash[_DESELECTED] = item.config.stash.get(_DESELECTED, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller of pytest-xdist what this worker deselected."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["real_kafka_deselected"] = session.config.stash.get(_DESELECTED, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of pytest-xdist deselected; all of them deselect the same."""
    deselected = getattr(node, "workeroutput", {}).get("real_kafka_deselected", 0)
    stash: pytest.Stash = node.config.stash
    stash[_DESELECTED] = max(deselected, stash.get(_DESELECTED, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many tests ran on a real Kafka, and why others did not."""
    ran: Counter[str] = Counter()
    not_run: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport) or _MARKER not in report.keywords:
                continue
            if report.skipped:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                not_run[reason.removeprefix("Skipped: ").splitlines()[0]] += 1
            elif report.when == "call":
                ran[str(dict(report.user_properties).get("kafka", "clusters of their own"))] += 1
            elif report.when == "setup" and report.failed:
                not_run["error in set-up"] += 1
    if deselected := config.stash.get(_DESELECTED, 0):
        not_run["deselected"] += deselected
    counts = f"{ran.total()} tests ran{_details(ran)}, {not_run.total()} did not run{_details(not_run)}"
    terminalreporter.write_line(f"real Kafka: {counts}")


def _details(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{what}: {count}' for what, count in counts.most_common())})" if counts else ""
