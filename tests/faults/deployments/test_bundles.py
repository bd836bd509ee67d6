"""DAG bundles with versions, and all of Airflow in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.jvm import KafkaCluster
from tests.databases import PostgreSQL
from tests.faults.conftest import NoteFault
from tests.faults.deployments import operations
from tests.faults.deployments.bundles import bundled_deployment, local_bundle
from tests.faults.deployments.production import START_SECONDS, TOPIC
from tests.faults.deployments.sources import messages_of
from tests.faults.deployments.watched import MARKS
from tests.programs import require_program

pytestmark = [*MARKS, pytest.mark.timeout(1800)]

_DAGS = Path(__file__).parent / "dags"
_RUN_SECONDS = 180


def git(repository: Path, *arguments: str) -> None:
    """Run git in a repository."""
    author = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    subprocess.run(
        [require_program("git"), *author, *arguments],
        cwd=repository,
        check=True,
        capture_output=True,
        timeout=60,
    )


def commit(repository: Path, message: str) -> None:
    """Commit everything."""
    git(repository, "add", "--all")
    git(repository, "commit", "--message", message)


def test_runs_of_git_and_local_bundles_tell_what_their_own_version_did(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, note_fault: NoteFault
) -> None:
    repository, local = tmp_path / "repository", tmp_path / "local"
    for folder in (repository, local):
        folder.mkdir()
    shutil.copy(_DAGS / "changing.py", repository)
    shutil.copy(_DAGS / "deleted.py", local)
    git(repository, "init", "--initial-branch", "main")
    commit(repository, "First version")
    bundles: list[dict[str, object]] = [
        {
            "name": "git",
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {"repo_url": str(repository), "tracking_ref": "main", "refresh_interval": 2},
        },
        local_bundle(local, refresh_interval=2),
    ]
    with bundled_deployment(tmp_path, packages, postgresql, kafka, bundles) as watched:
        airflow = watched.airflow
        airflow.start(START_SECONDS)
        airflow.await_dags({"changing", "deleted"}, START_SECONDS)
        before = airflow.trigger("changing", "first_version")
        operations.await_task(watched, "changing", before, "first", "running")
        operations.add_task(repository / "changing.py")
        commit(repository, "Second version")
        airflow.await_condition(
            lambda: len(airflow.get("/dags/changing/tasks")["tasks"]) == 3, _RUN_SECONDS, "the second version"
        )
        after = airflow.trigger("changing", "second_version")
        airflow.trigger("deleted", "of_a_local_bundle")
        watched.await_quiet()
        found = watched.compare()
    note_fault("Git and local bundles, a new commit while a run is under way", 1, remark=found.summary())
    tasks = Counter(
        (message["workflow_run_id"], message["payload"]["data"]["task"]["task_id"])
        for message in messages_of(kafka.bootstrap_servers, TOPIC)
        if message["event_type"] == "task.completed"
    )
    assert {task_id for run_id, task_id in tasks if run_id == before} == {"first", "second"}
    assert {task_id for run_id, task_id in tasks if run_id == after} == {"first", "second", "third"}
    assert (found.wrong, found.missing.total()) == ([], 0), found.details()


def test_airflow_standalone_tells_what_it_did(
    tmp_path: Path, packages: Path, postgresql: PostgreSQL, kafka: KafkaCluster, note_fault: NoteFault
) -> None:
    bundles = [local_bundle(_DAGS)]
    with bundled_deployment(tmp_path, packages, postgresql, kafka, bundles) as watched:
        airflow = watched.airflow
        airflow.migrate()
        airflow.start_part(
            "standalone",
            "airflow",
            "standalone",
            options={"api.port": str(airflow.port), "api.host": "127.0.0.1"},
            # It looks for the command that starts its parts.
            PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        )
        airflow.await_condition(airflow._healthy, START_SECONDS, "Airflow's processes to be healthy")
        airflow.await_dags({"plain", "retrying", "deferring"}, START_SECONDS)
        for dag_id in ("plain", "retrying", "deferring"):
            airflow.trigger(dag_id)
        watched.await_quiet()
        found = watched.compare()
    note_fault("airflow standalone", 1, remark=found.summary())
    assert (found.wrong, found.missing.total()) == ([], 0), found.details()
