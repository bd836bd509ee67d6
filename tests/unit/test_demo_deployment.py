"""What the demo's and the tests' Airflow does when its API server answers with an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.deployment import AirflowDeployment

_LOCKED = (500, {"detail": {"reason": "Database error", "message": "Serious error"}})
_BROKEN = (500, {"detail": "An error occurred while trying to deserialize Dag"})
_MADE = (200, {"dag_run_id": "made"})


@contextmanager
def answering(port: int, *answers: tuple[int, dict[str, Any]]) -> Iterator[list[str]]:
    """An API server that gives these answers, one after the other; yields the paths it was asked for."""
    left, asked = list(answers), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            login = self.path == "/auth/token"
            code, body = (201, {"access_token": "token"}) if login else left.pop(0)
            if not login:
                asked.append(self.path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_args: Any, **_kwargs: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("localhost", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[AirflowDeployment]:
    with AirflowDeployment(tmp_path, tmp_path) as deployment:
        yield deployment


def test_a_request_that_was_rolled_back_as_sqlite_was_locked_is_made_again(
    deployment: AirflowDeployment,
) -> None:
    with answering(deployment.port, _LOCKED, _LOCKED, _MADE) as asked:
        assert deployment.trigger("some_dag") == "made"

    assert asked == ["/api/v2/dags/some_dag/dagRuns"] * 3


def test_any_other_error_is_raised_at_once_with_what_airflow_said(deployment: AirflowDeployment) -> None:
    with answering(deployment.port, _BROKEN) as asked, pytest.raises(httpx.HTTPStatusError) as caught:
        deployment.trigger("some_dag")

    assert asked == ["/api/v2/dags/some_dag/dagRuns"]
    assert "deserialize Dag" in "".join(caught.value.__notes__)
