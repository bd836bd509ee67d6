"""A home for Airflow of this process's own, set before Airflow is imported: it reads it on import, once.

The tests' conftest.py imports this module first, as does a program of the tests that imports Airflow.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

_OPTIONS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


def _make_home() -> Path:
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow was imported before tests.airflow_home: import that module first")
    home = Path(tempfile.mkdtemp(prefix="airflow-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # What the developer's shell says about an Airflow of theirs must not reach the tests.
    for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
        del os.environ[name]
    os.environ.update(_OPTIONS, AIRFLOW_HOME=str(home))
    return home


#: This process's ``AIRFLOW_HOME``; removed when it ends.
AIRFLOW_HOME = _make_home()
