"""How much is injected, and the table of what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console
from rich.table import Table

from tests.broker import Broker
from tests.databases import PostgreSQL
from tests.faults.ledger import Ledger

#: ``full`` injects what docs/guarantees.md states; everything else a sample, for every run of the tests.
SCALE_VARIABLE = "FAULTS"
_ROW = "fault_row"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is injected."""

    full: bool

    def of(self, full: int, sample: int) -> int:
        """Return ``full`` in the fault suite and ``sample`` elsewhere."""
        return full if self.full else sample


@pytest.fixture(scope="session")
def scale() -> Scale:
    """How much is injected."""
    return Scale(os.environ.get(SCALE_VARIABLE) == "full")


@pytest.fixture
def topic(best_broker: Broker) -> str:
    """A topic of the test's own, on a real Kafka where one can be had."""
    name = f"faults-{uuid4()}"
    best_broker.create_topic(name)
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/outbox.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


NoteFault = Callable[..., None]
"""The type of :func:`note_fault`."""


@pytest.fixture
def note_fault(request: pytest.FixtureRequest) -> NoteFault:
    """``note_fault(fault, times, ledger=None, remark="")``: add a row to the table of the fault suite."""

    def note(fault: str, times: int, ledger: Ledger | None = None, remark: str = "") -> None:
        counts: tuple[Any, ...] = (
            ("", "", "", "")
            if ledger is None
            else (ledger.accepted, ledger.lost, ledger.repeated, ledger.disordered)
        )
        request.node.user_properties.append((_ROW, [fault, times, *counts, remark]))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rows, of tests that failed too."""
    rows: list[tuple[str, list[Any], str]] = [
        (report.nodeid, row, report.outcome)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, row in report.user_properties
        if name == _ROW and isinstance(row, list)
    ]
    if not rows:
        return
    table = Table(title="Faults, and what became of the events", title_justify="left")
    table.add_column("fault")
    for name in ("times", "accepted", "lost", "repeated", "keys out of order"):
        table.add_column(name, justify="right")
    table.add_column("what else")
    for _, (fault, *counts, remark), outcome in sorted(rows):
        words = [f"{count:,}" if isinstance(count, int) else "" for count in counts]
        table.add_row(fault, *words, remark if outcome == "passed" else f"FAILED {remark}")
    console = Console(width=max(terminalreporter._tw.fullwidth, 120))
    with console.capture() as capture:
        console.print(table)
    terminalreporter.write_line("")
    terminalreporter.write(capture.get())
