"""The demo shows every event, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo.expectations import Checklist
from tests.waiting import await_condition

pytestmark = [pytest.mark.airflow_e2e, pytest.mark.xdist_group("demo")]

ROOT = Path(__file__).parent.parent.parent


class Demo:
    """A demo in a process group of its own, with its temporary files in one folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.output = folder.parent / "demo.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo"],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def await_text(self, text: str, timeout_seconds: float = 120) -> None:
        await_condition(
            lambda: text in self.text, timeout_seconds=timeout_seconds, what=f"{text!r} in the demo"
        )

    def left_behind(self) -> list[str]:
        """Files of the demo, and processes that still work in its folder."""
        processes = [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(self.folder).encode() in _environment_of(entry)
        ]
        return [*(str(path) for path in self.folder.iterdir()), *processes]


def _environment_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tmp"
    made.mkdir()
    return made


def test_the_demo_consumes_every_expected_event_and_cleans_up(folder: Path) -> None:
    demo = Demo(folder)
    assert demo.process.wait(timeout=180) == 0, demo.text
    count = Checklist("any").expected_count
    assert f"{count} of {count} expected events were consumed" in demo.text
    assert demo.left_behind() == []


@pytest.mark.parametrize("moment", ["creating Airflow's database", "runs are under way"])
def test_ctrl_c_at_any_time_cleans_up(folder: Path, moment: str) -> None:
    demo = Demo(folder)
    demo.await_text(moment)
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.process.wait(timeout=60) == 130, demo.text
    assert demo.left_behind() == []


def test_a_kept_demo_says_where_airflow_is_and_ends_with_ctrl_c(folder: Path) -> None:
    demo = Demo(folder, KEEP="1")
    demo.await_text("End with ctrl-C", timeout_seconds=180)
    assert "Airflow is at http://localhost:" in demo.text
    assert "password" in demo.text
    os.killpg(demo.process.pid, signal.SIGTERM)
    assert demo.process.wait(timeout=60) == 130, demo.text
    assert demo.left_behind() == []


def test_without_a_broker_the_demo_fails_at_once_and_says_so(folder: Path) -> None:
    demo = Demo(folder, BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert demo.process.wait(timeout=60) == 1
    assert "no Kafka broker at 127.0.0.1:1 answered" in demo.text
