"""``docs/producer.md`` keeps every use of the API that this library promises, and names all parameters."""

from __future__ import annotations

import inspect
import re

import pytest

from airflow_workflow_events import WorkflowEventProducer, errors
from airflow_workflow_events.events import codec
from airflow_workflow_events.lifecycle.assembly import LIFECYCLE_FIELDS
from tests.docs.snippets import ROOT, Snippet, snippets_of

PROMISED = "tests/docs/promised_snippets.md"
GUIDE = (ROOT / "docs" / "producer.md").read_text(encoding="utf-8")

SECTIONS = [
    "Overview",
    "Installation",
    "Quick Start",
    "Producer Configuration",
    "Publishing Events",
    "Error Handling",
    "Connection Management",
    "Best Practices",
    "Integration Examples",
    "Logging",
    "Testing",
    "Troubleshooting",
    "Performance Considerations",
    "Security",
    "Related Documentation",
    "References",
]
TROUBLES = ["Connection Failures", "Publishing Failures", "Timeout Errors", "Serialization Errors"]


def promised() -> list[Snippet]:
    return list(snippets_of((ROOT / PROMISED).read_text(encoding="utf-8"), PROMISED))


def normalised(text: str) -> str:
    return " ".join(text.split())


def parameter_table() -> dict[str, str]:
    """The defaults the document states, by parameter, in its order."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \|", GUIDE, re.MULTILINE)
    return dict(rows)


def test_there_are_as_many_promises_as_there_were() -> None:
    assert len(promised()) == 24


@pytest.mark.parametrize("snippet", promised(), ids=lambda snippet: snippet.id)
def test_the_promised_use_of_the_api_stands_in_the_document(snippet: Snippet) -> None:
    executed = [normalised(one.code) for one in snippets_of(GUIDE, "docs/producer.md")]

    assert any(normalised(snippet.code) in code for code in executed)


def test_the_sections_stand_in_their_order() -> None:
    headings = re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)

    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS


def test_each_kind_of_trouble_has_its_solutions() -> None:
    troubleshooting = GUIDE.partition("\n## Troubleshooting\n")[2].partition("\n## ")[0]
    parts = dict(re.findall(r"^### (.+?)$(.*?)(?=^### |\Z)", troubleshooting, re.MULTILINE | re.DOTALL))

    assert list(parts) == TROUBLES
    assert all("**Problem**" in part and "**Solutions**" in part for part in parts.values())


def test_every_parameter_stands_in_the_table_with_its_default() -> None:
    def written(default: object) -> str:
        return f'"{default}"' if isinstance(default, str) else repr(default)

    parameters = inspect.signature(WorkflowEventProducer).parameters

    assert parameter_table() == {name: written(one.default) for name, one in parameters.items()}
    assert list(parameter_table()) == list(parameters)
    assert parameters["max_event_bytes"].default == codec.MAX_EVENT_BYTES


def test_every_error_that_publishing_raises_stands_in_the_table() -> None:
    named = set(re.findall(r"^\| `(\w+Error)` \|", GUIDE, re.MULTILINE))

    assert named <= set(errors.__all__)
    assert named >= {name for name in errors.__all__ if name.startswith("Kafka")} - {"KafkaError"}


def test_links_within_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)[^)]*\)", GUIDE)

    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)


def test_every_field_of_a_lifecycle_event_is_listed_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_cells = "\n".join(re.findall(r"^\| (`.*?) \|", readme, re.MULTILINE))
    assert set(LIFECYCLE_FIELDS) <= set(re.findall(r"`(\w+)`", first_cells))
