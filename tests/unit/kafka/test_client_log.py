"""librdkafka's floods are kept out of the log, and counted."""

from __future__ import annotations

import logging

import pytest

from airflow_workflow_events.kafka import client_log
from airflow_workflow_events.kafka.client_log import CLIENT_LOG, OncePerMinute


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    """A logger with a filter of its own."""
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("tests.client_log")
    logger.filters[:] = [OncePerMinute()]
    return logger


def refuse(log: logging.Logger, number: int) -> None:
    log.error("FAIL [thrd:localhost:%d]: Connection refused (after %dms in state CONNECT)", 9092, number)


def test_of_a_kind_the_first_passes_and_then_one_a_minute_that_counts_the_others(
    log: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(client_log, "monotonic", lambda: now)
    for number in range(200):
        refuse(log, number)
    log.warning("another kind")
    now += 61
    refuse(log, 7)

    rest = "[thrd:localhost:9092]: Connection refused (after "
    assert [record.getMessage() for record in caplog.records] == [
        f"FAIL {rest}0ms in state CONNECT)",
        "another kind",
        f"FAIL {rest}7ms in state CONNECT) (199 more like this since the last one)",
    ]


def test_who_debugs_sees_everything(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        log.debug("state changed")

    assert len(caplog.records) == 5


def test_every_client_logs_through_it() -> None:
    assert any(isinstance(one, OncePerMinute) for one in CLIENT_LOG.filters)
