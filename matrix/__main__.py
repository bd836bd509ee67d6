"""``make matrix``: the built wheel in every supported set of packages, and a table of how it did.

For each cell an environment is made from its constraints file, the wheel is installed into it, ``pip check``
is asked, and the tests and the demo run in a copy of the checkout without the package: they import the
installed one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from matrix.cells import CELLS, OUTERMOST, ROOT, Cell, resolve, test_requirements

WORK = ROOT / ".work" / "matrix"
_COPIED = (
    "tests",
    "demo",
    "dags_example",
    "docs",
    "docker",
    "benchmarks",
    "matrix",
    "constraints",
    "distributions",
    "README.md",
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "LICENSE",
    "docker-compose.yaml",
    ".env.example",
    ".dockerignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
# What touches pydantic, librdkafka and the triggerer by version; the demo shows the rest, on real Airflow.
_REDUCED = (
    "tests/unit/events/test_unbuilt_models.py",
    "tests/unit/events/test_model.py",
    "tests/unit/kafka/test_config.py",
    "tests/unit/airflow_side/test_supervisor_channel.py",
)
# Faults and the browser try out servers rather than packages, and take long.
_SUITE = ("tests", "--ignore=tests/faults", "--ignore=tests/browser")
_TAIL_LINES = 40
# How much of what the wheel exports must have a type that a checker need not infer.
_TYPED_PERCENT = 98
_PYRIGHT = "pyright[nodejs]==1.1.414"


def main() -> int:
    """Run what the command line asks for; return 0 if every cell that may not fail is in order."""
    parser = argparse.ArgumentParser(prog="python -m matrix", description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"of {', '.join(c.name for c in CELLS)}")
    parser.add_argument("--outermost", action="store_true", help=f"only {' and '.join(OUTERMOST)}")
    parser.add_argument(
        "--reduced", action="store_true", help="the tests that versions matter to, and the demo"
    )
    parser.add_argument("--tests", nargs="+", help="these tests instead")
    parser.add_argument("--resolve", action="store_true", help="write the constraints files anew and end")
    options = parser.parse_args()
    names = options.cells or (OUTERMOST if options.outermost else [cell.name for cell in CELLS])
    if unknown := set(names) - {cell.name for cell in CELLS}:
        parser.error(f"no such cell: {', '.join(sorted(unknown))}")
    cells = [cell for cell in CELLS if cell.name in names]
    if options.resolve:
        for cell in cells:
            resolve(cell)
            _say(f"wrote {cell.constraints.relative_to(ROOT)}")
        return 0
    tests = options.tests or (_REDUCED if options.reduced else _SUITE)
    wheel = _build()
    results = [(cell, _try(cell, wheel, tests)) for cell in cells]
    table = _table(results)
    print(f"\n{table}", flush=True)
    (WORK / "table.md").write_text(table, encoding="utf-8")
    return int(any(not all(_passed(row)) for cell, row in results if not cell.may_fail))


def _try(cell: Cell, wheel: Path, tests: Sequence[str]) -> list[str]:
    """Return what became of installing, checking, testing, the demo and types, a word or a figure each."""
    folder = WORK / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    tree = folder / "tree"
    tree.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, tree / name)
    python = folder / "venv" / "bin" / "python"
    if not _run(cell, "install", *_installing(cell, python, wheel), cwd=folder):
        return ["failed", "-", "-", "-", "-"]
    check = (
        ["uv", "pip", "check", "--python", str(python)] if _has_uv() else [str(python), "-m", "pip", "check"]
    )
    checked = "ok" if _run(cell, "check", check, cwd=folder) else "failed"
    _run(
        cell,
        "tests",
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *_workers(), *tests],
        cwd=tree,
    )
    tested = _last(folder / "tests.log", r"(?m)^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s")
    _run(cell, "demo", [str(python), "-m", "demo"], cwd=tree)
    shown = _last(folder / "demo.log", r"(\d+ of \d+) (?:expected )?events")
    # Last, for it adds a package. Pyright asks the Python on the path, and ends with 1 below 100 %.
    verify = 'PATH="$0:$PATH" pyright --verifytypes airflow_workflow_events --ignoreexternal || [ $? = 1 ]'
    _run(cell, "types", _install(python, _PYRIGHT), ["sh", "-c", verify, str(python.parent)], cwd=folder)
    typed = _last(folder / "types.log", r"Type completeness score: ([\d.]+%)")
    return ["ok", checked, tested, shown, typed]


def _installing(cell: Cell, python: Path, wheel: Path) -> list[list[str]]:
    what = ["--constraint", str(cell.constraints), f"apache-airflow=={cell.airflow}", str(wheel)]
    venv = str(python.parent.parent)
    make = ["uv", "venv", "--quiet", "--python", cell.python, venv]
    if not _has_uv():
        make = [f"python{cell.python}", "-m", "venv", venv]
    return [make, _install(python, *what, *test_requirements())]


def _install(python: Path, *what: str) -> list[str]:
    if _has_uv():
        return ["uv", "pip", "install", "--quiet", "--prerelease", "allow", "--python", str(python), *what]
    return [str(python), "-m", "pip", "install", "--quiet", *what]


def _run(cell: Cell, step: str, *commands: Sequence[str], cwd: Path) -> bool:
    """Run a step's commands, their output in a file; say how it goes, and show its end if it fails."""
    log = WORK / cell.name / f"{step}.log"
    started = time.monotonic()
    _say(f"{cell.name}: {step}")
    # Nothing of the environment that runs this: its packages and Airflow's settings are not the cell's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    kept.pop("VIRTUAL_ENV", None)
    with log.open("w", encoding="utf-8") as output:
        passed = all(
            subprocess.run(
                list(command), cwd=cwd, env=kept, stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode
            == 0
            for command in commands
        )
    _say(f"{cell.name}: {step} {'passed' if passed else 'FAILED'} in {time.monotonic() - started:.0f} s")
    if not passed:
        print(*log.read_text(encoding="utf-8").splitlines()[-_TAIL_LINES:], sep="\n", flush=True)
    return passed


def _build() -> Path:
    dist = WORK / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    _say("building the wheel")
    build = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(dist)]
    if not _has_uv():
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist)]
    subprocess.run([*build, str(ROOT)], check=True, cwd=ROOT)
    return next(dist.glob("*.whl"))


def _table(results: Sequence[tuple[Cell, list[str]]]) -> str:
    rows = [
        "| Airflow | Python | packages as of | install | pip check | tests | demo | types |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell, row in results:
        version = f"{cell.airflow} (look ahead)" if cell.may_fail else cell.airflow
        rows.append(f"| {' | '.join([version, cell.python, cell.until, *row])} |")
    return "\n".join(rows) + "\n"


def _passed(row: Sequence[str]) -> list[bool]:
    installed, checked, tested, shown, typed = row
    done = re.fullmatch(r"(\d+) of (\d+)", shown)
    return [
        installed == checked == "ok",
        "passed" in tested and "failed" not in tested and "error" not in tested,
        done is not None and done[1] == done[2],
        typed.endswith("%") and float(typed[:-1]) >= _TYPED_PERCENT,
    ]


def _last(log: Path, pattern: str) -> str:
    found = re.findall(pattern, log.read_text(encoding="utf-8"))
    return str(found[-1]) if found else "failed"


def _workers() -> list[str]:
    return ["-n", os.environ.get("WORKERS", "2"), "--dist", "loadgroup"]


def _has_uv() -> bool:
    return shutil.which("uv") is not None


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
