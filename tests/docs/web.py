"""A web application behind a real server and a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tests.waiting import await_condition


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an ASGI application in a thread; gives its URL."""
    # No web sockets, whose libraries uvicorn would look for.
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    try:
        await_condition(
            lambda: server.started or not thread.is_alive(), timeout_seconds=30, what="the web server"
        )
        assert server.started, "the application did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
