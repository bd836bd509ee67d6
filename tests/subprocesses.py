"""Running other programs."""

from __future__ import annotations

import subprocess


def output_of(*command: str, timeout_seconds: float = 60) -> str:
    """Run a program and return its output; raises with its errors if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout
