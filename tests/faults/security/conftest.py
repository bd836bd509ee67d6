"""The table of the matrix."""

from __future__ import annotations

from collections import defaultdict

import pytest

ROW = "security_row"


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
