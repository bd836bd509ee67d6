"""What a process and its children take of the machine and of the brokers, by ``/proc``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Every client of librdkafka has one thread of this name.
_CLIENT_THREAD = "rdk:main"


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes, and how many connections to the brokers and threads there are.

    ``pss`` counts a page that several processes share once: it is what would be free without them.
    """

    pss: int
    rss: int
    connections: int
    threads: int
    processes: int


def footprint(pid: int, port: int) -> Footprint:
    """Look at a process and its children; connections are those to a port of this machine."""
    parent = psutil.Process(pid)
    family = [parent, *parent.children(recursive=True)]
    memory = [process.memory_full_info() for process in family]
    return Footprint(
        pss=sum(one.pss for one in memory),
        rss=sum(one.rss for one in memory),
        connections=sum(
            connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port
            for process in family
            for connection in process.net_connections("tcp")
            if connection.raddr
        ),
        threads=sum(process.num_threads() for process in family),
        processes=len(family),
    )


def clients(pid: int) -> int:
    """Return how many Kafka clients a process and its children have."""
    found = 0
    for process in psutil.Process(pid).children(recursive=True):
        for thread in Path(f"/proc/{process.pid}/task").glob("*/comm"):
            with suppress(OSError):  # it has ended
                found += thread.read_text().strip() == _CLIENT_THREAD
    return found
