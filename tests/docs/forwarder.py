"""A TCP forwarder, so that a broker on any port can be reached at the port the documentation names."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


class Forwarder:
    """Forwards connections to one address of this machine to another one, in a thread, until it is stopped.

    Kafka clients need it for their first contact alone: then they follow the address that the broker names.

    Args:
        port: where to listen, on 127.0.0.1.
        target: ``host:port`` to forward to.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, port: int, target: str) -> None:
        host, _, target_port = target.rpartition(":")
        self._target = (host, int(target_port))
        self._listener = socket.socket()
        try:
            # A port that was used a moment ago may be used again; a listening one may not.
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._serve, name="forwarder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the listener and all connections."""
        self._wake.send(b"x")
        self._thread.join()

    def _serve(self) -> None:
        selector = self._selector
        selector.register(self._listener, selectors.EVENT_READ)
        selector.register(self._woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._woken:
                    self._close()
                    return
                if ready is self._listener:
                    self._accept()
                elif key.data.fileno() >= 0:  # its peer may have been closed a moment ago
                    self._pass_on(ready, key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:  # as if nobody listened
            client.close()
            return
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(_CHUNK_BYTES)
            target.sendall(data)
        if not data:
            for side in (source, target):
                self._selector.unregister(side)
                side.close()

    def _close(self) -> None:
        sockets = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        for one in (*sockets, self._wake):
            assert isinstance(one, socket.socket)
            one.close()
