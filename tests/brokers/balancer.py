"""A load balancer that forgets idle connections and tells nobody, as Azure's does after four minutes."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

_HOST = "127.0.0.1"
_CHUNK_BYTES = 65_536


class ForgetfulBalancer:
    """Stands in front of a broker on loopback; lives in a ``with`` block.

    What a connection carries after it was idle for too long is swallowed, and neither side is told.

    Args:
        broker: ``host:port`` of a broker without TLS, on ``127.0.0.1``.
        idle_seconds: how long a connection may be idle, in seconds.
    """

    def __init__(self, broker: str, idle_seconds: float) -> None:
        self._port = int(broker.rpartition(":")[2])
        self._idle_seconds = idle_seconds
        self._listener = socket.create_server((_HOST, 0))
        self._own_port = int(self._listener.getsockname()[1])
        self._connections: list[_Connection] = []

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of the balancer; brokers are advertised under it as well."""
        return f"{_HOST}:{self._own_port}"

    @property
    def remembers_none(self) -> bool:
        """Whether every connection so far has been closed by its client, or forgotten here."""
        return all(one.is_closed or one.is_forgotten for one in self._connections)

    @property
    def given_up(self) -> int:
        """How many connections have been closed by their client, or forgotten here."""
        return sum(one.is_closed or one.is_forgotten for one in self._connections)

    @property
    def swallowed_bytes(self) -> int:
        """How many bytes were sent on forgotten connections."""
        return sum(one.swallowed_bytes for one in self._connections)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for one in self._connections:
            one.close()

    def _accept(self) -> None:
        # The mock cluster and Kafka give their address as this length-prefixed text and a port of four bytes.
        advertised = _HOST.encode() + struct.pack(">i", self._port)
        own = _HOST.encode() + struct.pack(">i", self._own_port)
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            try:
                broker = socket.create_connection((_HOST, self._port))
            except OSError:  # it has ended
                client.close()
                continue
            self._connections.append(_Connection(client, broker, self._idle_seconds, (advertised, own)))


class _Connection:
    """One connection, in both directions."""

    def __init__(
        self,
        client: socket.socket,
        broker: socket.socket,
        idle_seconds: float,
        address: tuple[bytes, bytes],
    ) -> None:
        self._sockets = (client, broker)
        self._idle_seconds = idle_seconds
        self._address = address
        self._used_at = monotonic()
        self._forgotten = False
        self.is_closed = False
        self.swallowed_bytes = 0
        for source, target in ((client, broker), (broker, client)):
            threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @property
    def is_forgotten(self) -> bool:
        """Whether it was idle for too long."""
        self._forgotten = self._forgotten or monotonic() - self._used_at > self._idle_seconds
        return self._forgotten

    def close(self) -> None:
        """Close both sides."""
        self.is_closed = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(_CHUNK_BYTES):
                if self.is_forgotten:
                    self.swallowed_bytes += len(data)
                    continue
                self._used_at = monotonic()
                target.sendall(data.replace(*self._address))
        except OSError:
            pass  # the other side has ended
        self.close()
