"""Four ways to wait for events: as many sensors of each way as the environment says, and a watcher."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_workflow_events.sensors import WorkflowEventSensor
from airflow_workflow_events.triggers import WorkflowEventTrigger

_ALL = [f"hostile_{number:02d}*" for number in range(int(os.environ["HOSTILE_EVENTS"]))]
_POKED = _ALL[: int(os.environ["HOSTILE_POKED"])]
_WAITING: dict[str, Any] = {"timeout": 900}

with DAG("hostile", schedule=None):
    WorkflowEventSensor.partial(task_id="goes_on", **_WAITING).expand(workflow_id=_ALL)
    WorkflowEventSensor.partial(task_id="ends", end_from_trigger=True, **_WAITING).expand(workflow_id=_ALL)
    WorkflowEventSensor.partial(task_id="pokes", deferrable=False, poke_interval=2, **_WAITING).expand(
        workflow_id=_POKED
    )

watched = Asset(
    "hostile", watchers=[AssetWatcher(name="watcher", trigger=WorkflowEventTrigger(workflow_id="hostile_*"))]
)

with DAG("started_by_hostile", schedule=[watched]):
    pass
