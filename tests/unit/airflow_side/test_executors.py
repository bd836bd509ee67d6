"""Where tasks run on hosts without a relay, the scheduler says what to change."""

from __future__ import annotations

import pytest

from airflow_workflow_events.executors import advice_on_outbox

_FILE = "sqlite:////opt/airflow/workflow_events/outbox.db"


@pytest.mark.parametrize(
    ("executors", "named"),
    [
        ("KubernetesExecutor", "KubernetesExecutor"),
        ("LocalExecutor,KubernetesExecutor", "KubernetesExecutor"),
        ("CeleryExecutor, edge:airflow.providers.edge3.executors.EdgeExecutor", "EdgeExecutor"),
        ("LocalExecutor;team=my.company.PodExecutor", "PodExecutor"),
    ],
)
def test_a_file_that_nothing_relays_from_is_advised_against(executors: str, named: str) -> None:
    advice = advice_on_outbox(executors, _FILE)
    assert advice is not None
    assert f"run by {named} stay" in advice
    assert "outbox_url" in advice
    assert "airflow workflow-events relay" in advice


@pytest.mark.parametrize("executors", ["LocalExecutor", "CeleryExecutor", "CeleryExecutor,LocalExecutor"])
def test_executors_whose_hosts_have_a_relay_need_no_advice(executors: str) -> None:
    assert advice_on_outbox(executors, _FILE) is None


@pytest.mark.parametrize("url", [None, "postgresql://events@db/airflow"])
def test_an_outbox_that_all_hosts_share_needs_no_advice(url: str | None) -> None:
    assert advice_on_outbox("KubernetesExecutor", url) is None
