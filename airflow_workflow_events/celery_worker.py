"""A relay beside each Celery worker.

A worker's tasks append to the outbox of their host, where there may be no scheduler, DAG processor or
triggerer to relay from it. So a worker starts and ends one. It is a process rather than a thread:
Celery forks the worker again for each child that it replaces (``max_tasks_per_child``), and under gevent and
eventlet a thread would share the loop with the tasks. Airflow starts a worker's log server in the same way.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

log: logging.Logger = logging.getLogger(__name__)

# While Kafka is away this delays the end of the worker; what is left stays in the outbox.
_STOP_SECONDS = 10.0
_DISPATCH_UID = "workflow-events-relay"


class _WorkersRelay:
    """The relay of this worker, if it needs one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **_: object) -> None:
        """Start it, once."""
        if self.process is not None or not _is_needed():
            return
        command = [sys.executable, "-P", "-m", "airflow", "workflow-events", "relay", "--parent"]
        # A session of its own: a signal to the worker's group, such as ctrl-C, must not end the relay before
        # the tasks have ended that a warm shutdown waits for. It ends with its parent in any case.
        self.process = subprocess.Popen(  # noqa: S603 - every word of it stands here
            [*command, str(os.getpid())], stdin=subprocess.DEVNULL, start_new_session=True
        )
        log.info("workflow events of this worker's tasks are relayed by process %d", self.process.pid)

    def stop(self, **_: object) -> None:
        """Let it deliver for at most ten seconds, and end it."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_relay = _WorkersRelay()


def relay_beside_workers() -> None:
    """See to it that ``airflow celery worker`` has a relay; for any other command this does nothing.

    Airflow loads no plugin in a worker's main process, but it asks each provider for its commands.
    """
    from airflow.utils.cli_action_loggers import register_pre_exec_callback

    register_pre_exec_callback(_before_command)  # type: ignore[no-untyped-call]


def _before_command(**_: object) -> None:
    if sys.argv[1:3] != ["celery", "worker"]:
        return
    from celery import signals

    # Options are read once it is ready: Airflow does not know yet which come from a command or secret.
    signals.worker_ready.connect(_relay.start, weak=False, dispatch_uid=_DISPATCH_UID)
    signals.worker_shutdown.connect(_relay.stop, weak=False, dispatch_uid=_DISPATCH_UID)


def _is_needed() -> bool:
    """Whether the listener is on and its outbox is this host's own: elsewhere others relay from it."""
    from airflow_workflow_events.settings import Settings

    settings = Settings.load()
    return settings.listener and (settings.outbox_url or "").startswith("sqlite")
