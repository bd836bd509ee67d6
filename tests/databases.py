"""Databases for outboxes: a file, and a PostgreSQL server that the session starts."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

_SERVER_USER = "postgres"  # the server refuses to run as root
_FOLDERS = ("/usr/lib/postgresql",)


class PostgreSQL:
    """A server in a folder of its own, on loopback.

    Its folder is none of pytest's: each session of pytest, those inside tests too, closes their common parent
    to other users, and a server that runs as one ends at its next checkpoint, minutes later.
    """

    def __init__(self) -> None:
        self._binaries = _binaries()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._names = 0

    def start(self) -> None:
        """Start the server; returns once it takes connections."""
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        if os.geteuid() == 0:
            shutil.chown(self._folder, _SERVER_USER)
        data = self._folder / "data"
        self._run("initdb", "--pgdata", str(data), "--username", "tests", "--auth", "trust", "--no-sync")
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories='' -c fsync=off"
        )
        self._run("pg_ctl", "start", "-w", "-D", str(data), "-o", options, "-l", str(data / "log"))

    def stop(self) -> None:
        """Stop the server at once, and remove its folder."""
        try:
            self._run("pg_ctl", "stop", "-w", "-D", str(self._folder / "data"), "-m", "immediate")
        finally:
            shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        self._names += 1
        name = f"outbox_{os.getpid()}_{self._names}"
        server = f"tests:s3cret@127.0.0.1:{self._port}"
        engine = sa.create_engine(f"postgresql+psycopg2://{server}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return f"postgresql://{server}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        user = _SERVER_USER if os.geteuid() == 0 else None
        with (self._folder / "output").open("a+b") as output:  # a server that lives on would keep a pipe open
            done = subprocess.run(
                [str(self._binaries / program), *arguments],
                stdout=output,
                stderr=output,
                cwd="/",
                user=user,
                check=False,
                timeout=120,
            )
        if done.returncode:
            said = (self._folder / "output").read_text(errors="replace")[-1_000:]
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}")


def _binaries() -> Path:
    found = [
        path.parent for folder in _FOLDERS for path in sorted(Path(folder).glob("*/bin/initdb"), reverse=True)
    ]
    missing = None
    if not found:
        missing = "PostgreSQL's server is not installed"
    elif os.geteuid() == 0 and _SERVER_USER not in {entry.pw_name for entry in pwd.getpwall()}:
        missing = f"root has no user {_SERVER_USER} to run PostgreSQL as"
    if missing is None:
        return found[0]
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing is left out, but {missing}", pytrace=False)
    pytest.skip(missing)
