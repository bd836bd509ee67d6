"""The TCP connections of a process and its children, by what Linux says in ``/proc``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ESTABLISHED = "01"


def processes_of(group: int) -> list[int]:
    """The processes of a group."""
    return [pid for pid in _pids() if _group_of(pid) == group]


def established(group: int, port: int) -> int:
    """How many connections the processes of a group have to a port of this machine."""
    sockets = {inode for pid in processes_of(group) for inode in _sockets_of(pid)}
    return sum(inode in sockets for inode in _connected_to(port))


def threads(group: int, name: str) -> int:
    """How many threads of the processes of a group have this name."""
    found = 0
    for pid in processes_of(group):
        for thread in Path(f"/proc/{pid}/task").glob("*/comm"):
            with suppress(OSError):  # it has ended
                found += thread.read_text().strip() == name
    return found


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _group_of(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything: after it come the state, the parent and the group.
    return int(status.rpartition(")")[2].split()[2])


def _sockets_of(pid: int) -> Iterator[str]:
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").removesuffix("]")


def _connected_to(port: int) -> Iterator[str]:
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(file).exists():
            continue
        for line in Path(file).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port:
                yield fields[9]
