"""A whole Airflow on this machine: its processes, in a folder of its own, driven through its REST API."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

_T = TypeVar("_T")

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")

_STOP_SECONDS = 15
_REQUEST_SECONDS = 30
_REPEAT_SECONDS = 0.2


class DeploymentError(RuntimeError):
    """Airflow did not start, or did not do what was asked; the message says where the logs are."""


class AirflowDeployment:
    """Airflow's scheduler, DAG processor, triggerer and API server, as separate processes.

    Args:
        home: a folder of its own; becomes ``AIRFLOW_HOME`` and holds the logs.
        dags: the folder of the DAG files.
        connections: Airflow connections as JSON objects by id, given through the environment.
        config: further options, as ``{"section.option": value}``.
        on_progress: told what is being waited for.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        config: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.home = home
        self.port = _free_port()
        self.user, self.password = "admin", secrets.token_urlsafe(9)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._on_progress = on_progress
        self._client: httpx.Client | None = None
        self._environment = self._make_environment(dags, connections or {}, config or {})

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://localhost:{self.port}"

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.home / "logs"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout_seconds: float = 120) -> None:
        """Create the database and start every process; returns once all report to be healthy.

        Raises:
            DeploymentError: a process ended or did not become healthy in time.
        """
        self.migrate()
        for component in COMPONENTS:
            self._start(component)
        self.await_condition(self._healthy, timeout_seconds, "Airflow's processes to be healthy")

    def migrate(self) -> None:
        """Create the database and the user.

        Raises:
            DeploymentError: Airflow refused to.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        passwords = self.home / "simple_auth_manager_passwords.json"
        passwords.write_text(json.dumps({self.user: self.password}))
        passwords.chmod(0o600)
        self._on_progress("creating Airflow's database")
        with (self.logs / "db-migrate.log").open("wb") as log:
            code = subprocess.call(
                [*_AIRFLOW, "db", "migrate"], env=self._environment, stdout=log, stderr=log
            )
        if code:
            raise DeploymentError(f"airflow db migrate failed, see {self.logs / 'db-migrate.log'}")

    def stop(self) -> None:
        """End every process that was started here; a further ctrl-C does not cut it short."""
        if self._processes:
            self._on_progress("stopping Airflow")
        with _without_interruption():
            self._stop()

    def _stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        for process in self._processes.values():
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.1))
            # Whatever is left of the group, such as a worker that was busy.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def await_dags(self, dag_ids: set[str], timeout_seconds: float = 90) -> None:
        """Wait until the DAG processor has parsed these DAGs.

        Raises:
            DeploymentError: one is missing in time; the message carries Airflow's import errors.
        """

        def known() -> set[str]:
            return {dag["dag_id"] for dag in self.get("/dags?limit=100")["dags"]}

        try:
            self.await_condition(
                lambda: dag_ids <= known(), timeout_seconds, f"{len(dag_ids)} DAGs to be parsed"
            )
        except DeploymentError as error:
            missing = ", ".join(sorted(dag_ids - known()))
            problems = [found["stack_trace"] for found in self.get("/importErrors")["import_errors"]]
            raise DeploymentError("\n".join([f"{error}; missing: {missing}", *problems])) from None

    def trigger(self, dag_id: str, run_id: str | None = None, **body: Any) -> str:
        """Start a run and return its id."""
        answer = self.post(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "dag_run_id": run_id, **body})
        return str(answer["dag_run_id"])

    def await_run(self, dag_id: str, run_id: str, timeout_seconds: float = 120) -> str:
        """Wait until a run is over and return its state."""

        def state() -> str | None:
            found = str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])
            return found if found in {"success", "failed"} else None

        return self.await_condition(state, timeout_seconds, f"run {run_id} of {dag_id} to end")

    def get(self, path: str) -> Any:
        """GET from Airflow's REST API, e.g. ``/dags``."""
        return self.request("GET", path).json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST to Airflow's REST API."""
        return self.request("POST", path, body).json()

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Make a request to Airflow's REST API.

        Raises:
            httpx.HTTPError: Airflow refused it; a note on the error holds Airflow's answer.
        """
        if self._client is None:
            with httpx.Client(timeout=_REQUEST_SECONDS) as anonymous:
                login = {"username": self.user, "password": self.password}
                answer = anonymous.post(f"{self.url}/auth/token", json=login).raise_for_status()
            self._client = httpx.Client(
                base_url=f"{self.url}/api/v2",
                timeout=_REQUEST_SECONDS,
                headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
            )
        deadline = time.monotonic() + _REQUEST_SECONDS
        while True:
            answer = self._client.request(method, path, json=body)
            if not _is_database_error(answer) or time.monotonic() > deadline:
                break
            time.sleep(_REPEAT_SECONDS)
        try:
            return answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            error.add_note(answer.text[:2000])
            raise

    def await_condition(self, condition: Callable[[], _T | None], timeout_seconds: float, what: str) -> _T:
        """Wait until ``condition()`` is true, while Airflow's processes live.

        Raises:
            DeploymentError: it was not in time, or a process ended.
        """
        self._on_progress(f"waiting for {what}")
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                if result := condition():
                    return result
            except (httpx.HTTPError, KeyError) as error:
                problem = f": {error}"
            else:
                problem = ""
            for component, process in self._processes.items():
                if process.poll() is not None:
                    raise DeploymentError(f"{component} ended, see {self.logs / component}.log")
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"waited {timeout_seconds:g} s for {what} in vain{problem}; logs are in {self.logs}"
                )
            time.sleep(0.25)

    def run_cli(self, *arguments: str) -> str:
        """Run an ``airflow`` command in this deployment and return what it printed."""
        return self._run(*_AIRFLOW, *arguments)

    def run_python(self, code: str) -> str:
        """Run Python code in this deployment's environment and return what it printed."""
        return self._run(sys.executable, "-c", code)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DeploymentError(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def _start(self, component: str) -> None:
        arguments = ["--port", str(self.port), "--host", "127.0.0.1"] if component == "api-server" else []
        with (self.logs / f"{component}.log").open("wb") as log:
            self._processes[component] = subprocess.Popen(
                [*_AIRFLOW, component, *arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                # A group of its own: its children end with it, and ctrl-C reaches this program alone.
                start_new_session=True,
            )

    def _healthy(self) -> bool:
        answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).raise_for_status().json()
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all(answer[part]["status"] == "healthy" for part in parts)

    def _make_environment(
        self, dags: Path, connections: Mapping[str, Mapping[str, Any]], config: Mapping[str, str]
    ) -> dict[str, str]:
        options = {
            "core.dags_folder": str(dags),
            "core.load_examples": "False",
            "core.executor": "LocalExecutor",
            "core.parallelism": "4",
            "core.dags_are_paused_at_creation": "False",
            "core.simple_auth_manager_users": f"{self.user}:admin",
            "core.simple_auth_manager_passwords_file": str(self.home / "simple_auth_manager_passwords.json"),
            "core.execution_api_server_url": f"{self.url}/execution/",
            "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "database.sql_alchemy_conn": f"sqlite:///{self.home / 'airflow.db'}",
            "api.base_url": self.url,
            "api.workers": "1",
            "api.secret_key": secrets.token_hex(16),
            "api_auth.jwt_secret": secrets.token_hex(32),
            "dag_processor.refresh_interval": "5",
            "dag_processor.min_file_process_interval": "30",
            "scheduler.scheduler_heartbeat_sec": "1",
            "triggerer.default_capacity": "100",
            "logging.base_log_folder": str(self.logs / "airflow"),
            **config,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        return {
            **kept,
            "AIRFLOW_HOME": str(self.home),
            "PYTHONUNBUFFERED": "1",
            **{
                f"AIRFLOW__{section.upper()}__{option.upper()}": value
                for section, option, value in ((*name.split("."), value) for name, value in options.items())
            },
            **{
                f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(connection)
                for conn_id, connection in connections.items()
            },
        }


_AIRFLOW = (sys.executable, "-m", "airflow")


@contextlib.contextmanager
def _without_interruption() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_database_error(answer: httpx.Response) -> bool:
    """Whether the API server rolled a request back because SQLite was locked: it may be made again.

    Airflow's ``action_logging`` writes its row on the server's event loop. While another request (a worker's
    report, say) holds SQLite's write lock and needs that loop to commit, both wait for each other until
    SQLite gives up after 5 s; a longer timeout or a write-ahead log only makes them wait longer (measured).
    """
    return answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR and "Database error" in answer.text


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
