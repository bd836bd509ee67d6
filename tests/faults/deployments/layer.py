"""Packages that only some deployments need, laid over those that the tests run with."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_REQUIREMENTS = Path(__file__).with_name("layer.txt")
_INSTALL_SECONDS = 300


def layer(cache: Path) -> Path:
    """The folder to put on ``PYTHONPATH``, installed unless ``cache`` has it already.

    A layer rather than an environment: Airflow itself stays the one that the tests run with, whichever it is.
    """
    cache.mkdir(parents=True, exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = cache / f"py{version}-{hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="install-") as scratch:
                _install(Path(scratch, "layer"))
                Path(scratch, "layer").rename(found)
    return found


def _install(target: Path) -> None:
    options = ["--quiet", "--no-deps", "--target", str(target), "--requirement", str(_REQUIREMENTS)]
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, *options]
    else:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the packages of {_REQUIREMENTS.name} were not installed: {done.stderr[-2000:]}")
