"""``docs/consumer.md`` names every parameter, operator, header and error of the consumer."""

from __future__ import annotations

import inspect
import re

from airflow_workflow_events import WorkflowEventConsumer, errors
from airflow_workflow_events.events import filters
from airflow_workflow_events.kafka import dead_letters
from airflow_workflow_events.kafka.positions import StartFrom
from tests.docs.snippets import ROOT

GUIDE = (ROOT / "docs" / "consumer.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return GUIDE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_parameter_stands_in_the_table_with_its_default() -> None:
    def written(default: object) -> str:
        return f'"{default}"' if isinstance(default, str) else repr(default)

    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \|", section("Parameters"), re.MULTILINE)
    parameters = inspect.signature(WorkflowEventConsumer).parameters

    assert rows == [(name, written(one.default)) for name, one in parameters.items()]


def test_every_operator_stands_in_the_table() -> None:
    rows = "\n".join(re.findall(r"^\| (`\$.*?) \|", section("Filters"), re.MULTILINE))

    assert re.findall(r"\$\w+", rows) == list(filters._OPERATORS)


def test_every_header_of_a_dead_letter_stands_in_the_table() -> None:
    documented = re.findall(r"^\| `(dead_letter_\w+)` \|", section("Poison and dead letters"), re.MULTILINE)

    headers = {value for name, value in vars(dead_letters).items() if name.endswith("_HEADER")}
    assert sorted(documented) == sorted(headers)


def test_every_way_to_begin_stands_in_the_table() -> None:
    assert set(re.findall(r'^\| `"(\w+)"` \|', section("Where to begin"), re.MULTILINE)) == set(StartFrom)


def test_only_errors_that_exist_are_named() -> None:
    named = set(re.findall(r"^\| `(\w+Error)` \|", section("Errors"), re.MULTILINE))

    assert named
    assert named <= set(errors.__all__)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(((?!https?:)[^)#]*)(?:#([^)]*))?\)", GUIDE)

    assert targets
    for file, anchor in targets:
        text = (ROOT / "docs" / file).read_text(encoding="utf-8") if file else GUIDE
        anchors = {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        assert not anchor or anchor in anchors, f"{file}#{anchor}"
