"""A second scheduler's view of one run: ``airflow_hooks_of_run DAG_ID RUN_ID``.

Loads the run, says ``ready``, and on SIGUSR1 has Airflow call every listener: the run
started, and the run succeeded, again.
"""

from __future__ import annotations

import os
import signal
import sys


def main(dag_id: str, run_id: str) -> None:
    """Call the hooks of a run that others have called already."""
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow.listeners.listener import get_listener_manager
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        session.expunge_all()
    hook = get_listener_manager().hook
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # so that none is missed
    print("ready", flush=True)
    signal.sigwait({signal.SIGUSR1})
    hook.on_dag_run_running(dag_run=run, msg="started")
    hook.on_dag_run_success(dag_run=run, msg="success")


if __name__ == "__main__":
    main(*sys.argv[1:])
