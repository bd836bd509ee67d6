"""The test files of `docs/testing.md` pass as they stand there, run by pytest in a directory of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.snippets import all_snippets

FILES = {
    snippet.code.splitlines()[0].removeprefix("# "): snippet
    for snippet in all_snippets()
    if snippet.kind == "pytest"
}
_TIMEOUT_SECONDS = 240


def test_each_file_says_where_it_is() -> None:
    assert all(re.fullmatch(r"(dags|tests)/[\w/]+\.py", path) for path in FILES)
    assert "tests/test_daily_sales.py" in FILES


def test_the_tests_of_the_documentation_pass(tmp_path: Path) -> None:
    for path, snippet in FILES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(snippet.code, encoding="utf-8")
    isolated = FILES["tests/test_reading.py"].code
    (tmp_path / "tests" / "isolated" / "test_with_a_broker_each.py").write_text(isolated, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n", encoding="utf-8")
    tests = sum(len(re.findall(r"^def test_", snippet.code, re.MULTILINE)) for snippet in FILES.values())
    tests += len(re.findall(r"^def test_", isolated, re.MULTILINE))

    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "--durations=0", "-vv", "tests"],
        cwd=tmp_path,
        env={
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTEST"))
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout[-8000:]
    assert re.search(rf"\b{tests} passed\b", finished.stdout), finished.stdout[-2000:]
