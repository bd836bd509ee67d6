"""Whoever reads the documentation knows every metric there is."""

from __future__ import annotations

import re

from airflow_workflow_events import metrics
from tests.docs.snippets import ROOT


def test_every_metric_is_documented_and_no_other() -> None:
    names = {value for name, value in vars(metrics).items() if name.isupper()}
    documented = re.findall(
        r"^\| `(workflow_events\.\w+)` \|", (ROOT / "docs" / "outbox.md").read_text(), re.MULTILINE
    )
    assert sorted(documented) == sorted(names)
