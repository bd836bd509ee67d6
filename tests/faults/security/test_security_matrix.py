"""Who may is let in with exactly the documented grants; who may not is told so, and why, at once."""

from __future__ import annotations

import logging
import os
import re
import traceback
from pathlib import Path
from time import monotonic

import pytest

from airflow_workflow_events import EmbeddedBroker
from airflow_workflow_events.errors import KafkaAuthorizationError
from airflow_workflow_events.kafka.topics import check_writable
from tests.brokers.secure_listener import SecureListener
from tests.faults.conftest import SCALE_VARIABLE
from tests.faults.security.cells import CANARY, GOOD, IN_GROUP, READS, REFUSED, WRITES, Cell, Site
from tests.faults.security.conftest import ROW
from tests.faults.security.surfaces import BOUND_SECONDS, SURFACES, Attempt
from tests.unit.airflow_side.connections import Connections

_INIT_PRODUCER_ID = 22


def chosen(cells: dict[str, Cell]) -> list[tuple[str, str]]:
    """Return all pairs of cell and surface in the fault suite; elsewhere a surface for each cell, in turn."""
    pairs = []
    for number, (name, cell) in enumerate(cells.items()):
        fitting = [surface for surface, (kind, _) in SURFACES.items() if kind in cell.surfaces]
        if os.environ.get(SCALE_VARIABLE) != "full":
            fitting = [fitting[number % len(fitting)]]
        pairs += [(name, surface) for surface in fitting]
    return pairs


class Trial:
    """One cell on one surface."""

    def __init__(
        self,
        name: str,
        surface: str,
        site: Site,
        request: pytest.FixtureRequest,
        caplog: pytest.LogCaptureFixture,
        directory: Path,
    ) -> None:
        cell = {**GOOD, **REFUSED}[name]
        kind, self._act = SURFACES[surface]
        self._topic = site.missing_topic if cell.on_missing_topic else site.topic
        self._config = dict(cell.config(site, kind))
        self._row = (request, name, surface)
        self._caplog = caplog
        self._directory = directory
        self.error: BaseException | None = None
        self.text: str | None = None

    def run(self, connections: Connections) -> None:
        """Try it, and note what came of it."""
        extra = self._config | {"topic": self._topic, "connect.timeout.ms": BOUND_SECONDS * 1000}
        connections.add(extra=extra)
        attempt = Attempt(self._config, self._topic, self._directory, lambda: self._caplog.text)
        began = monotonic()
        with self._caplog.at_level(logging.DEBUG, "airflow_workflow_events"):
            try:
                self.text = self._act(attempt)
            except Exception as error:
                self.error, self.text = error, "".join(traceback.format_exception(error))
        self.seconds = monotonic() - began
        request, name, surface = self._row
        outcome = (
            "delivered" if self.text is None else "told" if self.error is None else type(self.error).__name__
        )
        request.node.user_properties.append((ROW, (name, surface, outcome, self.seconds)))


@pytest.mark.real_kafka
@pytest.mark.parametrize(("name", "surface"), chosen(GOOD))
def test_the_documented_grants_are_enough(
    name: str,
    surface: str,
    site: Site,
    everything: Connections,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    trial = Trial(name, surface, site, request, caplog, tmp_path)
    trial.run(everything)

    assert trial.text is None


@pytest.mark.real_kafka
@pytest.mark.parametrize(("name", "surface"), chosen(REFUSED))
def test_a_refusal_is_told_at_once_with_cause_and_remedy_and_no_secret(
    name: str,
    surface: str,
    site: Site,
    everything: Connections,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    cell = REFUSED[name]
    trial = Trial(name, surface, site, request, caplog, tmp_path)
    trial.run(everything)

    assert trial.text is not None, "it was let in"
    for words in cell.words:
        assert re.search(words, trial.text), trial.text
    if trial.error is not None:
        assert cell.error is not None
        assert isinstance(trial.error, cell.error)
    assert trial.seconds < BOUND_SECONDS / 4, "it was known long before"
    seen = trial.text + caplog.text + "".join(capfd.readouterr())
    for secret in (CANARY, *site.listener.users.values(), *_lines_of_keys(site)):
        assert secret not in seen


@pytest.mark.real_kafka
def test_the_documented_grants_on_groups_are_enough_for_who_keeps_a_position(
    site: Site, everything: Connections, tmp_path: Path
) -> None:
    config = site.as_somebody(
        "Read topic {topic}",
        "Describe topic {topic}",
        "Read group airflow-workflow-events.*",
        "Read group reports-*",
    )
    attempt = Attempt(config, site.topic, tmp_path, str)

    for kind, act in SURFACES.values():
        if kind == IN_GROUP:
            act(attempt)


def test_a_broker_that_wants_idempotence_granted_fails_the_connection_test(
    request: pytest.FixtureRequest,
) -> None:
    """As Kafka before 2.8 does, for which the embedded broker stands."""
    with EmbeddedBroker(topics={"events": 1}) as broker:
        config = {"bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True}
        check_writable(config, "events", timeout_seconds=2)
        broker.fail_requests(_INIT_PRODUCER_ID, [31] * 10)  # CLUSTER_AUTHORIZATION_FAILED

        with pytest.raises(KafkaAuthorizationError, match="IdempotentWrite on the cluster"):
            check_writable(config, "events", timeout_seconds=2)


def test_every_surface_is_in_the_sample() -> None:
    sampled = {surface for cells in (GOOD, REFUSED) for _, surface in chosen(cells)}

    assert sampled >= {name for name, (kind, _) in SURFACES.items() if kind in {WRITES, READS}}


def _lines_of_keys(site: Site) -> list[str]:
    listener: SecureListener = site.listener
    keys = [Path(listener.client_key_location), site.foreign.client_key]
    return [line for key in keys for line in key.read_text().splitlines() if not line.startswith("-----")]
