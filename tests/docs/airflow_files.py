"""DAG files of the documentation, parsed and run by Airflow in processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.airflow_versions import AIRFLOW
from tests.docs.snippets import Snippet

_TIMEOUT_SECONDS = 180

# What the README says to import from another module on Airflow 3.1.
_ELSEWHERE_ON_3_1 = {"AsyncCallback", "DeadlineAlert", "DeadlineReference"}

_DAG_BAG = """
import json, sys
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag
"""

_PARSE = """
def parse(path):
    bag = DagBag(path)
    return {"errors": list(bag.import_errors.values()), "dags": sorted(bag.dags)}

print(json.dumps({path: parse(path) for path in sys.argv[1:]}))
"""

_RUN = """
bag = DagBag(sys.argv[1])
print(json.dumps({dag_id: str(dag.test(logical_date=None).state) for dag_id, dag in bag.dags.items()}))
"""


class AirflowFiles:
    """The DAG files that documents describe, and an Airflow to try them out with.

    Args:
        directory: an empty directory, for the files and the Airflow home.
        servers: the broker, ``host:port``, which is also Airflow's connection for events.
    """

    def __init__(self, directory: Path, servers: str) -> None:
        self._directory = directory
        host, _, port = servers.rpartition(":")
        connection = {"conn_type": "workflow_events", "host": host, "port": int(port)}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(directory / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(directory),
            "AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT": json.dumps(connection),
        }
        self._parsed: dict[str, dict[str, Any]] = {}

    def parse(
        self, snippet: Snippet, snippets: Sequence[Snippet], prepare: Callable[[str], str]
    ) -> list[str]:
        """Have Airflow parse the file that ends with a snippet; return its DAGs' ids.

        A file is made of all DAG snippets under one heading up to the one asked for. All of a document's are
        parsed at once, as starting Airflow takes longer than parsing.

        Args:
            snippet: the snippet.
            snippets: those of its document.
            prepare: what to do to the code before.

        Raises:
            AssertionError: the file cannot be imported.
        """
        if str(self._path(snippet)) not in self._parsed:
            files = [one for one in snippets if one.kind == "dag"]
            for one in files:
                whole = [part.code for part in files if part.heading == one.heading and part.line <= one.line]
                code = _for_this_airflow(prepare("\n".join(whole)))
                self._path(one).write_text(code, encoding="utf-8")
            self._parsed.update(self._python(_DAG_BAG + _PARSE, *(str(self._path(one)) for one in files)))
        found = self._parsed[str(self._path(snippet))]
        assert found["errors"] == []
        dags: list[str] = found["dags"]
        return dags

    def run(self, snippet: Snippet) -> dict[str, str]:
        """Run each DAG of the parsed file that ends with a snippet; return the runs' states by DAG id."""
        if not (self._directory / "home" / "airflow.db").exists():
            self._process("-m", "airflow", "db", "migrate")
        states: dict[str, str] = self._python(_DAG_BAG + _RUN, str(self._path(snippet)))
        return states

    def _path(self, snippet: Snippet) -> Path:
        return self._directory / f"{Path(snippet.document).stem}_line_{snippet.line}.py"

    def _python(self, program: str, *arguments: str) -> Any:
        return json.loads(self._process("-c", program, *arguments).splitlines()[-1])

    def _process(self, *arguments: str) -> str:
        finished = subprocess.run(
            [sys.executable, *arguments],
            env=self._environment,
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        assert finished.returncode == 0, f"{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}"
        return finished.stdout


def _for_this_airflow(code: str) -> str:
    """The code with its imports as the README says they are to be on the Airflow that is installed."""
    if AIRFLOW >= (3, 2):
        return code

    def split(match: re.Match[str]) -> str:
        names = match[1].split(", ")
        here = [name for name in names if name not in _ELSEWHERE_ON_3_1]
        there = [name for name in names if name in _ELSEWHERE_ON_3_1]
        lines = [f"from airflow.sdk import {', '.join(here)}"] * bool(here)
        lines += [f"from airflow.sdk.definitions.deadline import {', '.join(there)}"] * bool(there)
        return "\n".join(lines)

    return re.sub(r"^from airflow\.sdk import (\w[\w, ]*)$", split, code, flags=re.MULTILINE)
