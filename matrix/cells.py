"""The sets of packages that this project is tried with, and how their constraints files are made."""

from __future__ import annotations

import subprocess
import tomllib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

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
        floors: whether what this package requires, extras included, is at its lowest. Default ``False``.
    """

    airflow: str
    python: str
    until: str
    may_fail: bool = False
    floors: bool = False

    @property
    def name(self) -> str:
        """``3.3.2-py3.11``, ``3.3.2-newest-py3.11`` with packages newer than Airflow, ``floors-py3.11``."""
        if self.floors:
            return f"floors-py{self.python}"
        return f"{self.airflow}{'-newest' * (self.until == NEWEST)}-py{self.python}"

    @property
    def constraints(self) -> Path:
        """The constraints file, made by :func:`resolve`."""
        return ROOT / "constraints" / f"{self.name}.txt"


CELLS = (
    # Packages that are not required directly are of the day: no newer one may ask for more than the floors.
    Cell("3.1.0", "3.11", "2025-10-28", floors=True),
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
    return [str(requirement) for requirement in _pyproject()["dependency-groups"]["test"]]


def resolve(cell: Cell) -> None:
    """Write a cell's constraints file: what a resolver gives for its day. Needs uv."""
    of_the_day = _compile(cell, cell.until, _required(cell), "lowest-direct" if cell.floors else "highest")
    # The test tools are newer in old cells, as far as what is pinned already lets them.
    everything = _compile(cell, NEWEST, [*of_the_day.splitlines(), *test_requirements()])
    cell.constraints.parent.mkdir(exist_ok=True)
    heading = f"# apache-airflow {cell.airflow} on Python {cell.python}, packages as of {cell.until}"
    heading += ", the lowest that pyproject.toml allows.\n" if cell.floors else ".\n"
    cell.constraints.write_text(heading + everything, encoding="utf-8")


def _required(cell: Cell) -> list[str]:
    if not cell.floors:
        return [f"apache-airflow[apache-kafka]=={cell.airflow}"]
    project = _pyproject()["project"]
    required = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    return [*required, "structlog<25.5"]  # Airflow 3.1.0 does not start with a newer one


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _compile(cell: Cell, until: str, requirements: list[str], resolution: str = "highest") -> str:
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--exclude-newer", until]
    command += ["--python-version", cell.python, "--python-platform", "linux", "--no-emit-find-links"]
    command += ["--resolution", resolution]
    done = subprocess.run(
        [*command, "-"], input="\n".join(requirements), capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode:
        raise SystemExit(f"{cell.name} cannot be resolved:\n{done.stderr}")
    return "".join(line + "\n" for line in done.stdout.splitlines() if not line.startswith("-"))
