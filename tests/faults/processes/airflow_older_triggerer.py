"""A triggerer in which this package finds no shared streams, as before Airflow 3.3."""

from __future__ import annotations

import builtins
import sys
from typing import Any

from airflow.__main__ import main as airflow

_HIDDEN = "airflow.triggers.shared_stream"
_FROM = "airflow_workflow_events"


def main() -> None:
    """Run Airflow's triggerer; its runner is forked, and so finds none either."""
    assert not any(name.startswith(f"{_FROM}.triggers") for name in sys.modules), "loaded too early"
    find = builtins.__import__

    def find_but_one(name: str, globals: Any = None, *arguments: Any, **named: Any) -> Any:  # noqa: A002 - its name
        if name == _HIDDEN and str((globals or {}).get("__name__", "")).startswith(_FROM):
            raise ImportError(name)
        return find(name, globals, *arguments, **named)

    setattr(builtins, "__import__", find_but_one)  # noqa: B010 - its type is more than this says
    sys.argv[1:] = ["triggerer"]
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
