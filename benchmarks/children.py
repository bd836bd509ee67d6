"""Running a measurement in a fresh interpreter, where nothing else has warmed up or filled the heap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.broker import ROOT

_TIMEOUT_SECONDS = 300


class MeasurementError(Exception):
    """A measurement did not come to a result."""


def run(*arguments: str) -> Any:
    """Run ``python *arguments`` and return the JSON of the last line it prints.

    Raises:
        MeasurementError: it failed or took more than five minutes.
    """
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            # An installed package has its byte code as its dependencies have theirs, whatever is set here.
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{arguments[:3]} took more than {_TIMEOUT_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise MeasurementError(f"{arguments[:3]} failed:\n{error.stderr[-3000:]}") from None
    return json.loads(done.stdout.splitlines()[-1])
