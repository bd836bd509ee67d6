"""Running other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def output_of(*command: str, timeout_seconds: float = 60) -> str:
    """Run a program and return its output; raises with its errors if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@contextmanager
def running(
    command: Sequence[str], *, end_seconds: float = 60, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a program beside the block, which has it end; where that fails or takes too long it is killed.

    The context of :class:`subprocess.Popen` waits for its end without a bound, even for one that hangs.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
            process.wait(end_seconds)
        except BaseException:
            process.kill()
            raise
