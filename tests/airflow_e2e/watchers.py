"""What became of an asset's watchers: asked of Airflow, of its database, and of Kafka."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from airflow_workflow_events import WorkflowEvent
from demo.deployment import AirflowDeployment
from tests.airflow_versions import AIRFLOW

_PAGE = 100
_ANSWER_SECONDS = 20


def pages(deployment: AirflowDeployment, path: str, key: str) -> Iterator[dict[str, Any]]:
    """Everything that a list of Airflow's REST API holds."""
    offset = 0
    while found := deployment.get(f"{path}limit={_PAGE}&offset={offset}")[key]:
        yield from found
        offset += len(found)


def asset_events(deployment: AirflowDeployment, asset: str) -> list[WorkflowEvent]:
    """The workflow events that became events of an asset, repetitions included, in Airflow's order."""
    query = (
        "SELECT asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_id WHERE asset.name = ?"
        " ORDER BY asset_event.id"
    )
    found = select(deployment, query, asset)
    return [WorkflowEvent.model_validate(json.loads(extra)["payload"]) for (extra,) in found]


def events_of_runs(deployment: AirflowDeployment, dag_id: str) -> list[WorkflowEvent]:
    """The workflow events that started the runs of a DAG, of all its runs."""
    return [
        WorkflowEvent.model_validate(one["extra"]["payload"])
        for run in pages(deployment, f"/dags/{dag_id}/dagRuns?", "dag_runs")
        for one in deployment.get(f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/upstreamAssetEvents")[
            "asset_events"
        ]
    ]


def watching_triggers(deployment: AirflowDeployment, asset: str) -> dict[int, int | None]:
    """The ids of an asset's triggers, and which triggerer has each."""
    table = "asset_watcher" if AIRFLOW >= (3, 2) else "asset_trigger"
    query = (
        f"SELECT trigger.id, trigger.triggerer_id FROM trigger JOIN {table} ON trigger_id = trigger.id"
        " JOIN asset ON asset.id = asset_id WHERE asset.name = ?"
    )
    return dict(select(deployment, query, asset))


def queued_runs(deployment: AirflowDeployment) -> int:
    """How many DAGs are to have a run for an event of an asset that has none yet."""
    [(count,)] = select(deployment, "SELECT count(*) FROM asset_dag_run_queue")
    return int(count)


def select(deployment: AirflowDeployment, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Ask Airflow's database what its REST API does not say."""
    with closing(sqlite3.connect(f"file:{deployment.home}/airflow.db?mode=ro", uri=True)) as connection:
        return connection.execute(query, parameters).fetchall()


def position_of(group_id: str, bootstrap_servers: str, topic: str) -> dict[int, int]:
    """What a watcher has committed, by partition: it is there once the watcher is at work."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group_id, "log_level": 0})
    try:
        known = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic].partitions
        partitions = [TopicPartition(topic, partition) for partition in known]
        committed = consumer.committed(partitions, timeout=_ANSWER_SECONDS)
        return {one.partition: one.offset for one in committed if one.offset >= 0}
    finally:
        consumer.close()
