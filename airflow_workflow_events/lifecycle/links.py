"""Addresses in Airflow's UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from airflow_workflow_events.lifecycle.reading import RunIdentity


def ui_url(base: str | None, identity: RunIdentity, task: Mapping[str, Any] | None = None) -> str | None:
    """Return the page of the run, or of the task, in Airflow's UI at ``base``."""
    if base is None:
        return None
    try:
        parts = urlsplit(base)
    except ValueError:  # an option that is no address costs the link, not the event
        return None
    # A login in the address is a secret.
    base = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    url = (
        f"{base}/dags/{quote(identity.workflow_id, safe='')}/runs/{quote(identity.workflow_run_id, safe='')}"
    )
    if task is not None and task["task_id"]:
        url += f"/tasks/{quote(task['task_id'], safe='')}"
        if task["map_index"] is not None and task["map_index"] >= 0:
            url += f"/mapped/{task['map_index']}"
    return url
