"""Kafka's jars, fetched with Maven."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

_POM = Path(__file__).with_name("pom.xml")
_FETCH_TIMEOUT_SECONDS = 900


class KafkaUnavailable(Exception):  # noqa: N818 - a state of the machine rather than a mistake
    """Brokers cannot be run on this machine; the message says why."""


def kafka_jars(cache_dir: Path) -> Path:
    """The directory with Kafka's jars, fetched with Maven unless ``cache_dir`` has them already.

    Any number of processes may call this at once: one fetches while the others wait.

    Args:
        cache_dir: created if missing; holds one directory for each version of the ``pom.xml``.

    Raises:
        KafkaUnavailable: when ``java`` or ``mvn`` is missing, or Maven cannot fetch the jars.
    """
    for command in ("java", "mvn"):
        if shutil.which(command) is None:
            raise KafkaUnavailable(f"{command} is not on the PATH")
    # Absolute, because Maven takes a relative directory to be beside the pom.
    cache_dir = cache_dir.absolute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    jars = cache_dir / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]}"
    with (cache_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            # Fetched beside its place and renamed, so that an interrupted fetch is never taken for whole.
            with tempfile.TemporaryDirectory(dir=cache_dir, prefix="fetch-") as scratch:
                _fetch(Path(scratch, "jars"))
                Path(scratch, "jars").rename(jars)
    return jars


def _fetch(directory: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
    try:
        subprocess.run(
            [*command, f"-DoutputDirectory={directory}"],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise KafkaUnavailable(f"Maven took more than {_FETCH_TIMEOUT_SECONDS} s to fetch Kafka") from None
    except subprocess.CalledProcessError as error:
        raise KafkaUnavailable(f"Maven could not fetch Kafka:\n{error.stdout[-3000:]}") from None
