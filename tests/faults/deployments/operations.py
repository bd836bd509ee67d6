"""What people do to runs by hand."""

from __future__ import annotations

from pathlib import Path

from tests.faults.deployments.production import Production
from tests.faults.deployments.watched import Watched

_SECONDS = 180


def change_state(airflow: Production, dag_id: str, run_id: str, state: str) -> None:
    """Mark a run."""
    airflow.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})


def mark_task(watched: Watched, dag_id: str, run_id: str, task_id: str, state: str) -> None:
    """Mark a task instance."""
    watched.marked.append((dag_id, run_id, task_id))
    watched.airflow.request(
        "PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", {"new_state": state}
    )


def clear_run(airflow: Production, dag_id: str, run_id: str) -> None:
    """Clear a run, all of its tasks."""
    airflow.request("POST", f"/dags/{dag_id}/dagRuns/{run_id}/clear", {"dry_run": False})


def await_task(watched: Watched, dag_id: str, run_id: str, task_id: str, state: str) -> None:
    """Wait until a task is in a state."""
    airflow = watched.airflow

    def reached() -> bool:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        return bool(airflow.get(path)["state"] == state)

    airflow.await_condition(reached, _SECONDS, f"{task_id} of {run_id} to be {state}")


def operate(watched: Watched) -> None:
    """Mark running runs and a running task, mark a run again and again, clear runs."""
    airflow = watched.airflow
    runs = {what: airflow.trigger("long", what) for what in ("succeeds", "fails", "task_marked", "cleared")}
    done = airflow.trigger("plain", "marked_again")
    for run_id in runs.values():
        await_task(watched, "long", run_id, "work", "running")
    change_state(airflow, "long", runs["succeeds"], "success")
    change_state(airflow, "long", runs["fails"], "failed")
    mark_task(watched, "long", runs["task_marked"], "work", "success")
    clear_run(airflow, "long", runs["cleared"])
    assert airflow.await_run("plain", done, _SECONDS) == "success"
    for state in ("failed", "success"):
        change_state(airflow, "plain", done, state)
    again = airflow.trigger("plain", "run_again")
    assert airflow.await_run("plain", again, _SECONDS) == "success"
    clear_run(airflow, "plain", again)


def add_task(file: Path) -> None:
    """Give the DAG of ``changing.py`` a third task."""
    text = file.read_text()
    tail = "    first() >> second()\n"
    assert text.endswith(tail)
    third = "    @task\n    def third() -> None: ...\n\n    first() >> second() >> third()\n"
    file.write_text(text.removesuffix(tail) + third)


def change_file(watched: Watched, dags: Path) -> None:
    """Change a DAG's file while a run of it is under way, and delete another DAG with its file."""
    airflow = watched.airflow
    changed = airflow.trigger("changing", "changed")
    await_task(watched, "changing", changed, "first", "running")
    add_task(dags / "changing.py")
    assert airflow.await_run("deleted", airflow.trigger("deleted", "then_deleted"), _SECONDS) == "success"
    (dags / "deleted.py").unlink()
    airflow.request("DELETE", "/dags/deleted")


def backfill(airflow: Production) -> None:
    """Run a DAG for three days of the past."""
    body = {"dag_id": "backfilled", "from_date": "2026-01-02T00:00:00Z", "to_date": "2026-01-04T00:00:00Z"}
    airflow.post("/backfills", {**body, "max_active_runs": 3, "run_backwards": False, "dag_run_conf": {}})
