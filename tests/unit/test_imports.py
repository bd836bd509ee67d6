"""No module of the package needs, while it is imported, one that needs it.

Python breaks such a cycle by handing out half of a module, and which half depends on who comes first: two
threads that import different modules of it fail with "partially initialized module".
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import airflow_workflow_events

PACKAGE = Path(airflow_workflow_events.__file__).parent

TWO_THREADS = """
import importlib, sys, threading
sys.setswitchinterval(1e-5)
both, errors = threading.Barrier(2), []

def load(name):
    both.wait()
    try:
        importlib.import_module(name)
    except Exception as error:
        errors.append(repr(error))

threads = [threading.Thread(target=load, args=(f"airflow_workflow_events.{name}",)) for name in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
"""


def statements_run_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, but for those in functions and those for type checkers."""
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from statements_run_at_import(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
            for part in ast.iter_child_nodes(statement):
                yield from statements_run_at_import([part] if isinstance(part, ast.stmt) else [])
                if isinstance(part, ast.ExceptHandler):
                    yield from statements_run_at_import(part.body)


def names_imported_at_import(source: str) -> Iterator[str]:
    """What a module imports while it is imported itself; of ``from a import b`` both ``a`` and ``a.b``."""
    for statement in statements_run_at_import(ast.parse(source).body):
        if isinstance(statement, ast.Import):
            yield from (one.name for one in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module is not None, "relative imports are not used here"
            yield statement.module
            yield from (f"{statement.module}.{one.name}" for one in statement.names)


def packages_of(name: str) -> Iterator[str]:
    """The packages that Python imports before a module."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def needs() -> dict[str, set[str]]:
    """For each module of the package those that are imported before it is complete."""
    sources = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        sources[name] = path.read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for name, source in sources.items():
        imported = sources.keys() & set(names_imported_at_import(source))
        found[name] = {*packages_of(name), *imported, *(one for of in imported for one in packages_of(of))}
    return found


def test_no_module_needs_itself_to_be_imported() -> None:
    graph = needs()
    assert "airflow_workflow_events.events.model" in graph["airflow_workflow_events.events.codec"]
    graphlib.TopologicalSorter(graph).prepare()  # raises with the cycle, if there is one


def test_two_threads_may_import_different_modules_first() -> None:
    for pair in (("events.codec", "events.model"), ("events", "events.parsing"), ("outbox", "outbox.store")):
        done = subprocess.run(
            [sys.executable, "-c", TWO_THREADS, *pair],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
