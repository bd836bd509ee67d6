"""What the Python snippets of ``docs/contract.md`` do, asserted after they were executed."""

from __future__ import annotations

from airflow_workflow_events.events import decode
from airflow_workflow_events.events.framing import strip_confluent_frame
from tests.docs.reading import Check, Run


def schemas_are_found(run: Run) -> None:
    assert run.printed.split() == [run.names["schema"]["$id"], "workflow-events"]
    assert run.names["schema"]["title"] == "WorkflowEvent"


def value_is_framed(run: Run) -> None:
    [message] = run.site.topics.new("workflow-events")
    value = message.value()
    assert isinstance(value, bytes)
    assert value[:5] == b"\0" + run.names["schema_id"].to_bytes(4, "big")
    assert decode(strip_confluent_frame(value), message.headers()) == run.names["event"]


CONTRACT: dict[str, Check] = {"": schemas_are_found, "Schema registry": value_is_framed}
