"""The example DAGs under ``airflow dags test``: one process, a real metadata database, a real consumer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_workflow_events.events.codec import decode
from tests.broker import Broker
from tests.unit.airflow_side.processes import run_airflow

EXAMPLES = Path(__file__).parents[3] / "dags_example"


@pytest.mark.airflow_e2e
def test_the_example_dags_publish_their_events(
    embedded_broker: Broker, event_topic: str, tmp_path: Path
) -> None:
    extra = {"bootstrap.servers": embedded_broker.bootstrap_servers, "topic": event_topic}
    environment = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
        "AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT": json.dumps({"conn_type": "workflow_events", "extra": extra}),
    }
    run_airflow("db", "migrate", environment=environment)
    for example in ("publish_with_callbacks", "publish_with_operator"):
        output = run_airflow("dags", "test", f"example_{example}", environment=environment)
        assert "state=success" in output.splitlines()[-1], output

    events = [
        decode(message.value(), message.headers()) for message in embedded_broker.messages(event_topic, 6)
    ]
    assert sorted((event.workflow_id, event.event_type) for event in events) == [
        ("example_publish_with_callbacks", "sales.refreshed"),
        ("example_publish_with_callbacks", "task.completed"),
        ("example_publish_with_callbacks", "task.started"),
        ("example_publish_with_callbacks", "workflow.completed"),
        ("example_publish_with_operator", "orders.loaded"),
        ("example_publish_with_operator", "orders.ready"),
    ]
    by_type = {event.event_type: event for event in events if event.metadata.emitted_by == "operator"}
    loaded, ready = by_type["orders.loaded"], by_type["orders.ready"]
    assert loaded.payload.data["run"] == loaded.workflow_run_id
    assert loaded.payload.data["files"] == [{"name": "orders_manual.csv", "rows": 1280}]
    assert ready.payload.data["previous_event"] == loaded.event_id
