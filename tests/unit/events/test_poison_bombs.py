"""Refusing a message costs at most a small multiple of what an event of its size costs: time and memory."""

from __future__ import annotations

import json
import sys

import pytest

from tests.subprocesses import output_of

# Each in a process of its own, as only the operating system sees what pydantic's parser allocates.
_PROGRAM = """
import json, os, sys, time
from resource import RUSAGE_SELF, getrusage
from airflow_workflow_events.errors import EventDecodeError
from airflow_workflow_events.events import decode
from tests.poison_bombs import BOMBS, DEAREST_EVENT

STRUCTURED = {"content-type": b"application/cloudevents+json"}

def cost(value, headers):
    reader, writer = os.pipe()
    if not os.fork():
        memory, began, text = getrusage(RUSAGE_SELF).ru_maxrss, time.process_time(), ""
        try:
            decode(value, headers)
        except EventDecodeError as error:
            text = str(error)
        used = time.process_time() - began, getrusage(RUSAGE_SELF).ru_maxrss - memory, len(text)
        os.write(writer, json.dumps(used).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        used = json.loads(answer.read())
    os.wait()
    return used

costs = {"an event": cost(DEAREST_EVENT, None)}
for name, message in BOMBS.items():
    costs[name] = cost(message, None)
    costs[f"{name}, in an envelope"] = cost(b'{"specversion":"1.0","data":' + message + b"}", STRUCTURED)
print(json.dumps(costs))
"""


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[float, int, int]]:
    """Seconds of CPU time, kilobytes, and the error's length in characters, of each message."""
    found: dict[str, tuple[float, int, int]] = json.loads(
        output_of(sys.executable, "-c", _PROGRAM, timeout_seconds=300)
    )
    return found


def test_what_is_no_event_takes_little_more_memory_than_an_event(
    costs: dict[str, tuple[float, int, int]],
) -> None:
    _, allowed, _ = costs["an event"]

    assert {name: memory for name, (_, memory, _) in costs.items() if memory > 4 * allowed} == {}


def test_what_is_no_event_takes_little_more_time_than_an_event(
    costs: dict[str, tuple[float, int, int]],
) -> None:
    allowed, _, _ = costs["an event"]

    assert {name: seconds for name, (seconds, _, _) in costs.items() if seconds > 6 * allowed} == {}


def test_what_is_wrong_with_it_is_a_short_text(costs: dict[str, tuple[float, int, int]]) -> None:
    assert {name: length for name, (_, _, length) in costs.items() if length > 1_100} == {}
