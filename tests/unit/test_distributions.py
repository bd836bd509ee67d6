"""The two distributions that are built from this tree, and the page that a package index shows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from airflow_workflow_events import __version__
from tests.programs import require_program
from tests.subprocesses import output_of

_ROOT = Path(__file__).parent.parent.parent
_PUBLISH = """
from airflow_workflow_events import *
event = WorkflowEvent(event_type="workflow.completed", source="service", workflow_id="w", workflow_run_id="r",
                      metadata=WorkflowEventMetadata(environment="test"))
with EmbeddedBroker() as broker, WorkflowEventProducer(broker.bootstrap_servers) as producer:
    print(producer.publish_event(event))
"""
_WHERE = "import airflow_workflow_events; print(airflow_workflow_events.__file__)"


def _project(path: str) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((_ROOT / path).read_text(encoding="utf-8"))["project"]
    return project


def test_the_small_distribution_asks_for_what_the_provider_asks_for_but_airflow() -> None:
    provider, core = _project("pyproject.toml"), _project("distributions/core/pyproject.toml")

    asked = [one for one in list(provider["dependencies"]) if not one.startswith("apache-airflow")]  # type: ignore[call-overload]

    assert core["dependencies"] == asked
    assert core["optional-dependencies"] == provider["optional-dependencies"]
    assert core["requires-python"] == provider["requires-python"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The provider's wheel and the small one."""
    if not (_ROOT / "airflow_workflow_events").exists():
        pytest.skip("there is no source to build from beside an installed wheel")
    require_program("uv")
    folder = tmp_path_factory.mktemp("wheels")
    for source in (_ROOT, _ROOT / "distributions" / "core"):
        subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder, source], check=True)
    return [
        folder / f"{name}-{__version__}-py3-none-any.whl"
        for name in ("airflow_workflow_events", "airflow_workflow_events_core")
    ]


def test_both_wheels_hold_the_same_package_and_no_file_of_one_is_in_the_other(wheels: list[Path]) -> None:
    provider, core = (
        {file.filename: file.CRC for file in zipfile.ZipFile(wheel).infolist()} for wheel in wheels
    )
    prefix = "airflow_workflow_events_core/"
    inside = {name.removeprefix(prefix): crc for name, crc in core.items() if name.startswith(prefix)}

    package = {name: crc for name, crc in provider.items() if name.startswith("airflow_workflow_events/")}

    assert package.items() <= inside.items()
    assert not provider.keys() & core.keys()


def test_without_airflow_the_small_wheel_publishes_and_what_needs_airflow_says_so(
    wheels: list[Path], tmp_path: Path
) -> None:
    python = _environment(tmp_path / "venv", wheels[1])

    output_of("uv", "pip", "check", "--python", python)
    published = output_of(python, "-I", "-c", _PUBLISH)
    refused = subprocess.run(
        [python, "-I", "-c", "import airflow_workflow_events.hooks"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert published == "True\n"
    assert "needs Apache Airflow" in refused.stderr.splitlines()[-1]
    assert "pip install airflow-workflow-events" in refused.stderr.splitlines()[-1]


def test_either_wheel_works_on_after_the_other_was_removed(wheels: list[Path], tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv", wheels[1])
    _install(python, "--no-deps", str(wheels[0]))  # Airflow itself has no part in this
    both = output_of(python, "-I", "-c", _WHERE)
    output_of("uv", "pip", "uninstall", "--python", python, "airflow-workflow-events")
    core = output_of(python, "-I", "-c", _PUBLISH + _WHERE)
    _install(python, "--no-deps", str(wheels[0]))
    output_of("uv", "pip", "uninstall", "--python", python, "airflow-workflow-events-core")
    provider = output_of(python, "-I", "-c", _PUBLISH + _WHERE)

    assert "airflow_workflow_events_core" not in both
    assert core.startswith("True\n")
    assert "airflow_workflow_events_core" in core
    assert provider.startswith("True\n")
    assert "airflow_workflow_events_core" not in provider


def _environment(folder: Path, wheel: Path) -> str:
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = str(folder / "bin" / "python")
    _install(python, str(wheel))
    return python


def _install(python: str, *what: str) -> None:
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *what], check=True, timeout=120)


def test_the_readme_has_no_relative_link_and_its_own_files_exist() -> None:
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    home = str(_project("pyproject.toml")["urls"]["Homepage"])  # type: ignore[index]
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/")
    definitions = dict(re.findall(r"(?m)^\[([^\]]+)\]: (\S+)$", text))
    inline = re.findall(r"\]\(([^)\s]+)\)", text)
    used = set(re.findall(r"\]\[([^\]]+)\]", text))

    assert used == definitions.keys()
    targets = [*inline, *definitions.values()]
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    own = [re.sub(rf"^({home}/(blob|tree)|{raw})/main/", "", target) for target in targets]
    paths = [path.partition("#")[0] for path in own if not path.startswith(("https://", "#"))]
    assert [
        path for path in paths if not (_ROOT / path).exists() and not path.startswith("airflow_work")
    ] == []
