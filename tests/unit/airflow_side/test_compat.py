"""Names of Airflow, with a compatibility provider that has them and with one that does not."""

from __future__ import annotations

from airflow_workflow_events import compat
from tests.unit.airflow_side.processes import run_program


def test_without_the_compatibility_providers_names_airflows_own_are_taken() -> None:
    said = run_program(
        "import sys\n"
        "sys.modules['airflow.providers.common.compat.sdk'] = None\n"
        "from airflow_workflow_events import compat\n"
        "print(*(name for name in compat.__all__ if hasattr(compat, name)))"
    )
    assert said.splitlines()[-1].split() == compat.__all__
