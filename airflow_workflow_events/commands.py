"""``airflow workflow-events ...``: run a relay, and see and mend what is in the outbox.

Every ``airflow`` command imports this module, so it imports what a command needs only when that runs.
"""

from __future__ import annotations

import os
import signal
import threading
from argparse import Namespace
from typing import TYPE_CHECKING

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_workflow_events.celery_worker import relay_beside_workers

if TYPE_CHECKING:
    from airflow_workflow_events.outbox.store import Outbox

_DRAIN_SECONDS = 20.0
_PARENT_CHECK_SECONDS = 1.0
_EVENT_ID = Arg(  # type: ignore[no-untyped-call]
    ("--event-id",), help="only this event; all parked ones by default"
)
_PARENT = Arg(  # type: ignore[no-untyped-call]
    ("--parent",), type=int, metavar="PID", help="end as soon as this is not the parent process any more"
)
_LIMIT = Arg(  # type: ignore[no-untyped-call]
    ("--limit",), type=int, default=100, help="how many at most (default: %(default)s)"
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the commands, for Airflow's ``cli`` entry of a provider."""
    relay_beside_workers()
    return [
        GroupCommand(
            name="workflow-events",
            help="Relay workflow events from the outbox, and look after it",
            subcommands=(
                ActionCommand(
                    name="relay",
                    help="Deliver events from the outbox until stopped",
                    func=relay,
                    args=(_PARENT,),
                ),
                ActionCommand(
                    name="outbox",
                    help="Show how much is in the outbox and which relays are at work",
                    func=show_outbox,
                    args=(),
                ),
                ActionCommand(
                    name="parked",
                    help="List events that cannot be delivered as they are, with the reason",
                    func=show_parked,
                    args=(_LIMIT,),
                ),
                ActionCommand(
                    name="retry", help="Attempt parked events again", func=retry_parked, args=(_EVENT_ID,)
                ),
                ActionCommand(
                    name="discard",
                    help="Remove parked events for good",
                    func=discard_parked,
                    args=(_EVENT_ID,),
                ),
            ),
        )
    ]


def relay(args: Namespace) -> None:
    """Deliver events from the outbox until SIGTERM or SIGINT, then for at most 20 seconds."""
    from airflow_workflow_events.relaying import run_relay

    # Connections may be in Airflow's database, which its secrets backends ask only in such a process.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if args.parent is not None:
        threading.Thread(target=_stop_without, args=(args.parent, stop), daemon=True).start()
    outbox = _outbox()
    print(f"relaying from {outbox.database.name}", flush=True)
    if not run_relay(outbox, stop, _DRAIN_SECONDS):
        raise SystemExit("the relay did not end in time; what it had claimed is claimed again by others")


def _stop_without(parent: int, stop: threading.Event) -> None:
    # A parent that is killed cannot say so, and no system call that all systems have waits for its end.
    while os.getppid() == parent and not stop.wait(_PARENT_CHECK_SECONDS):
        pass
    stop.set()


def show_outbox(_args: Namespace) -> None:
    """Show how much is in the outbox and which relays are at work."""
    from airflow_workflow_events.outbox.background import SILENCE_SECONDS

    outbox = _outbox()
    totals = outbox.totals()
    age = "-" if totals.oldest_age_seconds is None else f"{totals.oldest_age_seconds:.1f} s"
    print(f"outbox      {outbox.database.name}")
    print(f"pending     {totals.pending}")
    print(f"oldest      {age}")
    print(f"parked      {totals.parked}")
    print(f"size        {totals.size_bytes} bytes")
    print(f"relays      {', '.join(outbox.relays(SILENCE_SECONDS)) or 'none is at work'}")


def show_parked(args: Namespace) -> None:
    """List parked events, the oldest first."""
    for entry in _outbox().parked(args.limit):
        print(f"{entry.event_id}  {entry.event_type}  {entry.ordering_key}  {entry.reason}")


def retry_parked(args: Namespace) -> None:
    """Attempt parked events again."""
    print(f"{_outbox().retry_parked(args.event_id)} event(s) will be attempted again")


def discard_parked(args: Namespace) -> None:
    """Remove parked events for good."""
    print(f"{_outbox().discard_parked(args.event_id)} event(s) were removed")


def _outbox() -> Outbox:
    from airflow_workflow_events.relaying import outbox_of
    from airflow_workflow_events.settings import Settings

    outbox = outbox_of(Settings.load())
    if outbox is None:
        raise SystemExit("there is no outbox: set [workflow_events] outbox_url")
    return outbox
