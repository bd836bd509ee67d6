"""AsyncAPI's own parser accepts the AsyncAPI document.

It does not look into the examples of version 3 documents: `tests/unit/events/test_asyncapi.py` does.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events.events.asyncapi import ASYNCAPI_PATH
from tests.languages.node import Node, NodeUnavailable, available_node, node_with_packages

PROGRAM = Path(__file__).with_name("validate_asyncapi.mjs").read_text("utf-8")
DOCUMENT: dict[str, Any] = json.loads(ASYNCAPI_PATH.read_text("utf-8"))


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Node:
    return available_node(pytestconfig.rootpath / ".work" / "node")


def found_by_the_parser(node: Node, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.output_of(PROGRAM, str(path)))
    return found


def test_asyncapis_parser_finds_nothing_wrong_with_the_document(node: Node) -> None:
    found = found_by_the_parser(node, ASYNCAPI_PATH)

    assert found["problems"] == []
    assert sorted(found["messages"]) == [
        "workflow-event-binary",
        "workflow-event-off",
        "workflow-event-structured",
    ]


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "an unknown action": lambda d: d["operations"]["publishWorkflowEvent"].update(action="shout"),
    "a reference that leads nowhere": lambda d: d["components"]["messages"]["off"]["payload"].update(
        {"$ref": "#/components/schemas/Nothing"}
    ),
    "a schema that is none": lambda d: d["components"]["schemas"]["WorkflowEvent"].update(type="event"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_asyncapis_parser_sees(mistake: str, node: Node, tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    BROKEN[mistake](document)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document), encoding="utf-8")

    assert found_by_the_parser(node, path)["problems"]


def test_without_node_the_reason_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeUnavailable, match="node is not on the PATH"):
        node_with_packages(tmp_path)

    monkeypatch.setenv("REQUIRE_REAL_KAFKA", "0")
    with pytest.raises(pytest.skip.Exception, match="no Node: node is not on the PATH"):
        available_node(tmp_path)

    monkeypatch.setenv("REQUIRE_REAL_KAFKA", "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_REAL_KAFKA=1, but node is not on the PATH"):
        available_node(tmp_path)
