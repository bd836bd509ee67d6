"""The sets of packages that this project is tried with, and how their constraints files are made."""

from __future__ import annotations

import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What the tests need on top of Airflow and this package is as of this day in every cell.
NEWEST = "2026-11-26"


@dataclass(frozen=True)
class Cell:
    """One set of packages.

    Args:
        airflow: Airflow's version.
        python: Python's, ``3.11``.
        until: packages are as they were on this day: Airflow's release day, or :data:`NEWEST`.
        may_fail: whether a failure is told and nothing more. Default ``False``.
    """

    airflow: str
    python: str
    until: str
    may_fail: bool = False

    @property
    def name(self) -> str:
        """``3.3.2-py3.11``, and ``3.3.2-newest-py3.11`` where packages are newer than Airflow."""
        return f"{self.airflow}{'-newest' * (self.until == NEWEST)}-py{self.python}"

    @property
    def constraints(self) -> Path:
        """The constraints file, made by :func:`resolve`."""
        return ROOT / "constraints" / f"{self.name}.txt"


CELLS = (
    Cell("3.1.8", "3.11", "2026-03-11"),
    Cell("3.2.2", "3.12", "2026-05-29"),
    Cell("3.3.1", "3.11", "2026-08-12"),
    Cell("3.3.2", "3.11", "2026-09-17"),
    Cell("3.3.2", "3.11", NEWEST),
    Cell("3.3.2", "3.12", NEWEST),
    Cell("3.3.2", "3.13", NEWEST),
    Cell("3.4.0b2", "3.12", "2026-10-20", may_fail=True),
)
#: The outermost ones, for continuous integration: the set that most people install with, and the oldest.
OUTERMOST = ("3.3.2-py3.11", "3.1.8-py3.11")


def test_requirements() -> list[str]:
    """Return what the tests need, by pyproject.toml."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    return [str(requirement) for requirement in groups["test"]]


def resolve(cell: Cell) -> None:
    """Write a cell's constraints file: what a resolver gives for its day. Needs uv."""
    airflow = f"apache-airflow[apache-kafka]=={cell.airflow}"
    of_the_day = _compile([airflow], cell, cell.until)
    # The test tools are newer in old cells, as far as what is pinned already lets them.
    everything = _compile([*of_the_day.splitlines(), *test_requirements()], cell, NEWEST)
    cell.constraints.parent.mkdir(exist_ok=True)
    heading = f"# apache-airflow {cell.airflow} on Python {cell.python}, packages as of {cell.until}.\n"
    cell.constraints.write_text(heading + everything, encoding="utf-8")


def _compile(requirements: list[str], cell: Cell, until: str) -> str:
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--exclude-newer", until]
    command += ["--python-version", cell.python, "--python-platform", "linux", "--no-emit-find-links"]
    done = subprocess.run(
        [*command, "-"], input="\n".join(requirements), capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode:
        raise SystemExit(f"{cell.name} cannot be resolved:\n{done.stderr}")
    return "".join(line + "\n" for line in done.stdout.splitlines() if not line.startswith("-"))
