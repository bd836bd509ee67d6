"""The file of an outbox in SQLite: where it may be, and who may read it."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from airflow_workflow_events.errors import OutboxUnavailableError

log: logging.Logger = logging.getLogger(__name__)

_OWNER_ONLY = 0o600
_BY_GROUP = stat.S_IRGRP | stat.S_IWGRP
_told: set[str] = set()


def prepare_file(path: Path, *, strict: bool) -> None:
    """Make the file readable by its owner alone, or say who else has a hand in one that exists.

    Args:
        path: the file.
        strict: whether a relative path or a missing folder is taken for a mistake.

    Raises:
        OutboxUnavailableError: there can be no outbox here; the message says why.
        OSError: the file cannot be made.
    """
    if strict and not path.is_absolute():
        raise _unusable(
            path,
            "the path is relative, so that each process would have another; use sqlite:////absolute/path",
        )
    if path.is_symlink() and not path.exists():
        raise _unusable(path, f"it is a symbolic link to {path.readlink()}, which does not exist; remove it")
    if strict and not path.parent.exists():
        raise _unusable(path, f"the folder {path.parent} does not exist; create it, or correct the path")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One that exists is not even opened: closing it would end every lock that this process has on it, those
    # of SQLite's own connections too, and others would then take its log for nobody's, and remove it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ONLY))  # SQLite's others follow it
        return
    _warn_of_others(path)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another in its place; ``None`` where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _warn_of_others(path: Path) -> None:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IRWXO:
        _warn(path, f"every user of this host has access to it (mode {mode:04o}); run chmod o= on it")
    elif found.st_uid != os.geteuid() and mode & _BY_GROUP != _BY_GROUP:
        _warn(
            path,
            f"it belongs to user {found.st_uid}, and this process runs as user {os.geteuid()}; see that only "
            "Airflow's own users can write to it",
        )


def _warn(path: Path, what: str) -> None:
    text = f"the outbox at {path} holds events that others should not read or change, but {what}"
    if text not in _told:
        _told.add(text)
        log.warning("%s", text)


def _unusable(path: Path, why: str) -> OutboxUnavailableError:
    return OutboxUnavailableError(f"the outbox at {path} cannot be used: {why}")
