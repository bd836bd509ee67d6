"""Under gevent nothing blocks the loop: services run there with gunicorn's and Celery's gevent workers."""

from __future__ import annotations

import sys

from tests.broker import Broker
from tests.subprocesses import output_of


def test_other_greenlets_run_while_one_publishes_connects_or_consumes(broker: Broker, topic: str) -> None:
    program = "tests.contract.processes.greenlets"
    output = output_of(sys.executable, "-m", program, broker.bootstrap_servers, topic)
    assert output.splitlines() == [
        "KafkaTimeoutError beside",
        "KafkaConnectionError beside",
        "8 8 beside",
    ]
