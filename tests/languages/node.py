"""Node, with the packages of the ``package.json`` beside this file, fetched with npm."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

_PACKAGES = Path(__file__).with_name("package.json")
_FETCH_TIMEOUT_SECONDS = 600
# A lock file would record the address of a registry; scripts of packages are not needed.
_FETCH = (
    "npm",
    "install",
    "--no-package-lock",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
)


class NodeUnavailable(Exception):  # noqa: N818 - a state of the machine rather than a mistake
    """Node programs cannot be run on this machine; the message says why."""


@dataclass(frozen=True)
class Node:
    """A Node that finds the packages.

    Attributes:
        directory: where the packages are, in ``node_modules``.
    """

    directory: Path

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a program, an ECMAScript module, which reads nothing from stdin; its output is piped."""
        process = subprocess.Popen(
            ["node", "--input-type=module", "-", *arguments],
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(code)
        process.stdin.close()
        process.stdin = None
        return process

    def output_of(self, code: str, *arguments: str, timeout_seconds: float = 120) -> str:
        """Run a program and return what it wrote to stdout; raises with its errors if it fails."""
        with self.start(code, *arguments) as process:
            try:
                output, errors = process.communicate(timeout=timeout_seconds)
            finally:
                process.kill()
        assert process.returncode == 0, f"node ended with {process.returncode}: {errors[-2000:]}"
        return output


def available_node(cache_dir: Path) -> Node:
    """Node with its packages; skips the test, or fails it in CI, where they cannot be had."""
    try:
        return node_with_packages(cache_dir)
    except NodeUnavailable as error:
        if os.environ.get("REQUIRE_REAL_KAFKA") == "1":
            pytest.fail(f"REQUIRE_REAL_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"no Node: {error}")


def node_with_packages(cache_dir: Path) -> Node:
    """Node with its packages, fetched with npm unless ``cache_dir`` has them already.

    Any number of processes may call this at once: one fetches while the others wait.

    Args:
        cache_dir: created if missing; holds one directory for each version of the ``package.json``.

    Raises:
        NodeUnavailable: when ``node`` or ``npm`` is missing, or npm cannot fetch the packages.
    """
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            raise NodeUnavailable(f"{command} is not on the PATH")
    cache_dir.mkdir(parents=True, exist_ok=True)
    directory = cache_dir / f"packages-{hashlib.sha256(_PACKAGES.read_bytes()).hexdigest()[:16]}"
    with (cache_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            # Fetched beside its place and renamed, so that an interrupted fetch is never taken for whole.
            with tempfile.TemporaryDirectory(dir=cache_dir, prefix="fetch-") as scratch:
                packages = Path(scratch, "packages")
                packages.mkdir()
                shutil.copy(_PACKAGES, packages)
                _fetch(packages)
                packages.rename(directory)
    return Node(directory)


def _fetch(directory: Path) -> None:
    try:
        subprocess.run(
            _FETCH,
            cwd=directory,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NodeUnavailable(f"npm took more than {_FETCH_TIMEOUT_SECONDS} s to fetch packages") from None
    except subprocess.CalledProcessError as error:
        raise NodeUnavailable(f"npm could not fetch packages:\n{error.stdout[-3000:]}") from None
