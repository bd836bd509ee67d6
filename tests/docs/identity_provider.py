"""An OAuth 2.0 token endpoint for the client credentials grant."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_LIFETIME_SECONDS = 600


class IdentityProvider:
    """Hands unsigned tokens for one user to one client; lives in a ``with`` block.

    Args:
        client: the client's id and secret.
        user: the subject of the tokens.
    """

    def __init__(self, client: tuple[str, str], user: str) -> None:
        expected = "Basic " + base64.b64encode(":".join(client).encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                known = self.headers.get("Authorization") == expected
                token = {
                    "access_token": _token(user),
                    "token_type": "Bearer",
                    "expires_in": _LIFETIME_SECONDS,
                }
                body = json.dumps(token if known else {"error": "invalid_client"}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="identity-provider", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens; every path is the token endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _token(user: str) -> str:
    now = time.time()
    claims = {"sub": user, "iat": now, "exp": now + _LIFETIME_SECONDS, "scope": "kafka"}
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."
