"""A child that is forked while a thread imports waits for that import for ever, if it needs the module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TIMEOUT_SECONDS = 200


def test_no_thread_is_the_first_to_import_a_module_where_a_fork_can_cut_through_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.processes.first_imports", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    # What Airflow logs is there as well.
    [unguarded] = [line for line in done.stdout.splitlines() if line.startswith("unguarded")] or [done.stderr]
    assert unguarded == "unguarded: []"
