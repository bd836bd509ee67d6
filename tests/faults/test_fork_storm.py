"""A process that forks while its threads are at work: no child waits for a lock that nobody will release."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import NoteFault, Scale

_TIMEOUT_SECONDS = 3_000


@pytest.mark.timeout(_TIMEOUT_SECONDS + 60)
def test_no_child_hangs_that_is_forked_while_threads_look_up_publish_relay_mask_and_log(
    tmp_path: Path, scale: Scale, note_fault: NoteFault
) -> None:
    forks = scale.of(2_000, 40)
    # Its log goes through a pipe, as in a container: a thread that writes waits for the reader now and then.
    storm = subprocess.run(
        [sys.executable, "-m", "tests.faults.processes.fork_storm", str(tmp_path), str(forks)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    complaints = [
        line for line in storm.stderr.splitlines() if not line.startswith(("DEBUG:", "INFO:", "20"))
    ]
    assert storm.returncode == 0, "\n".join([storm.stdout, *complaints[-100:]])
    note_fault("fork while threads look up, publish, relay, mask and log", forks, remark=storm.stdout.strip())
