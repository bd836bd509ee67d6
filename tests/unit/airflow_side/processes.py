"""Python programs and commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

_TIMEOUT_SECONDS = 120


def run_program(program: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a Python program; returns what it wrote, on stdout and stderr."""
    return _run([sys.executable, "-c", program], environment).stdout.strip()


def run_airflow(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run an ``airflow`` command; returns what it wrote, on stdout and stderr."""
    return _run([sys.executable, "-m", "airflow", *arguments], environment).stdout.strip()


def _run(command: list[str], environment: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert finished.returncode == 0, finished.stdout
    return finished
