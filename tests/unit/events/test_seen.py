"""What was handled is remembered, the last of it, in memory or in a file that processes may share."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_workflow_events import ConfigurationError, SeenInMemory, SeenInSqlite

Make = Callable[[int], SeenInMemory | SeenInSqlite]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def made(max_ids: int) -> SeenInMemory | SeenInSqlite:
        return SeenInMemory(max_ids) if request.param == "memory" else SeenInSqlite(tmp_path / "db", max_ids)

    return made


def test_what_was_added_is_remembered(make: Make) -> None:
    seen = make(10)
    assert "a" not in seen
    seen.add("a")
    seen.add("a")
    assert "a" in seen
    assert len(seen) == 1


def test_the_oldest_go_first_and_one_that_comes_again_is_new(make: Make) -> None:
    seen = make(3)
    for event_id in ("a", "b", "c", "a", "d"):
        seen.add(event_id)
    for one in "efg":
        assert one not in seen
    kept = {one for one in "abcd" if one in seen}
    assert kept >= {"c", "a", "d"}


def test_there_are_never_many_more_than_asked_for(make: Make) -> None:
    seen = make(50)
    most = 0
    for number in range(500):
        seen.add(str(number))
        most = max(most, len(seen))
    assert most <= 100
    assert all(str(number) in seen for number in range(450, 500))


@pytest.mark.parametrize("max_ids", [0, -1, "5", True, 1.5])
def test_a_window_of_nothing_is_refused(make: Make, max_ids: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_ids"):
        make(max_ids)


def test_a_file_remembers_after_a_restart_and_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "seen.db"
    first = SeenInSqlite(path)
    first.add("a")
    first.close()

    assert "a" in SeenInSqlite(path)
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seen.db"
    path.write_bytes(b"hello" * 1_000)
    with pytest.raises(ConfigurationError, match=r"seen\.db"):
        SeenInSqlite(path)
    with pytest.raises(ConfigurationError, match="absent"):
        SeenInSqlite(tmp_path / "absent" / "seen.db")


def test_threads_share_one_object(make: Make) -> None:
    seen = make(10_000)

    def add(name: str) -> None:
        for number in range(200):
            seen.add(f"{name}{number}")

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800


PROGRAM = """
import sys
from airflow_workflow_events import SeenInSqlite
seen = SeenInSqlite(sys.argv[1], 1_000_000)
for number in range(150):
    seen.add(f"{sys.argv[2]}{number}")
    assert f"{sys.argv[2]}{number}" in seen
print(len(seen))
"""


def test_processes_share_one_file_also_when_they_make_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "seen.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in "abc"
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors[-2000:]
    seen = SeenInSqlite(path)

    assert len(seen) == 450


def test_a_file_can_be_made_by_many_at_once(tmp_path: Path) -> None:
    failures: list[ConfigurationError] = []

    def make_it(path: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            SeenInSqlite(path).close()
        except ConfigurationError as error:
            failures.append(error)

    for number in range(20):
        together = threading.Barrier(6)
        threads = [
            threading.Thread(target=make_it, args=(tmp_path / f"{number}.db", together)) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []


def test_an_object_that_was_closed_says_so(tmp_path: Path) -> None:
    seen = SeenInSqlite(tmp_path / "seen.db")
    seen.close()
    seen.close()
