"""``airflow workflow-events ...``: run a relay, and see and mend what is in the outbox.

On Airflow 3.1 they are run as ``python -m airflow_workflow_events ...``, see ``__main__``.

Every ``airflow`` command imports this module, so it imports what a command needs only when that runs.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_workflow_events.celery_worker import relay_beside_workers
from airflow_workflow_events.errors import OutboxError, WorkflowEventsError, printable
from airflow_workflow_events.startup import told_at_start

if TYPE_CHECKING:
    from airflow_workflow_events.outbox.entries import ParkedEntry
    from airflow_workflow_events.outbox.store import Outbox

_DRAIN_SECONDS = 20.0
_ALL = 1_000_000_000
_LOOK_SECONDS = 1.0
# Windows has no such signal.
_LOOK_AGAIN = frozenset(filter(None, (getattr(signal, "SIGHUP", None),)))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


_EVENT_ID = Arg(  # type: ignore[no-untyped-call]
    ("--event-id",), help="only this event; all parked ones by default"
)
_PARENT = Arg(  # type: ignore[no-untyped-call]
    ("--parent",), type=int, metavar="PID", help="end as soon as this is not the parent process any more"
)
_YES = Arg(  # type: ignore[no-untyped-call]
    ("--yes", "-y"), action="store_true", help="do not ask"
)
_LIMIT = Arg(  # type: ignore[no-untyped-call]
    ("--limit",), type=_count, default=100, help="how many at most (default: %(default)s)"
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the commands, for Airflow's ``cli`` entry of a provider."""
    relay_beside_workers()
    told_at_start()
    return [command_group()]


def command_group() -> GroupCommand:
    """Return the commands as such."""
    return GroupCommand(
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
                args=(_EVENT_ID, _YES),
            ),
        ),
    )


def relay(args: Namespace) -> None:
    """Deliver events from the outbox until SIGTERM or SIGINT, then for at most 20 seconds.

    SIGHUP has it look its connections up again, and attempt at once what backs off.
    """
    from airflow_workflow_events.relaying import background_relay

    # Connections may be in Airflow's database, which its secrets backends ask only in such a process.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    # This queue's put() is reentrant; the lock of an event may be held by the very thread that the handler
    # interrupts.
    orders: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, *_LOOK_AGAIN):
        signal.signal(number, lambda order, _frame: orders.put(order))
    with _one_line_errors():
        outbox = _outbox()
    try:
        outbox.totals()
    except OutboxError as error:  # a server may be away for a while, and a worker starts its relay but once
        _say(f"{error}; it is tried again")
    relaying = background_relay(outbox)
    _say(f"relaying from {outbox.database.place}")
    relaying.start()
    while _next_order(orders, args.parent) in _LOOK_AGAIN:
        relaying.look_again()
    if not relaying.stop(_DRAIN_SECONDS):
        raise SystemExit("the relay did not end in time; what it had claimed is claimed again by others")


def _next_order(orders: SimpleQueue[int], parent: int | None) -> int:
    """Wait for the number of a signal; ``SIGTERM`` where ``parent`` is not the parent process any more."""
    while True:
        try:
            # A signal that comes between Python's last look for one and the system call that blocks does not
            # end that call: waiting without a bound, its handler would run with the next signal only. And a
            # parent that is killed cannot say so, for which not every system has a call that waits.
            return orders.get(timeout=_LOOK_SECONDS)
        except Empty:
            if parent is not None and os.getppid() != parent:
                return signal.SIGTERM


def show_outbox(_args: Namespace) -> None:
    """Show how much is in the outbox and which relays are at work."""
    from airflow_workflow_events.outbox.background import SILENCE_SECONDS

    with _one_line_errors():
        outbox = _outbox()
        totals, relays = outbox.totals(), outbox.relays(SILENCE_SECONDS)
    age = "-" if totals.oldest_age_seconds is None else f"{totals.oldest_age_seconds:.1f} s"
    _say(f"outbox      {outbox.database.place}")
    _say(f"pending     {totals.pending}")
    _say(f"oldest      {age}")
    _say(f"parked      {totals.parked}")
    _say(f"size        {totals.size_bytes} bytes")
    _say(f"relays      {', '.join(relays) or 'none is at work'}")


def show_parked(args: Namespace) -> None:
    """List parked events, the oldest first."""
    with _one_line_errors():
        outbox = _outbox()
        entries, total = outbox.parked(args.limit), outbox.totals().parked
    for entry in entries:
        _say(_in_words(entry))
    if not entries:
        _say("no event is parked")
    elif total > len(entries):
        _say(f"{total - len(entries)} more: raise --limit")


def retry_parked(args: Namespace) -> None:
    """Attempt parked events again."""
    with _one_line_errors():
        count = _outbox().retry_parked(args.event_id)
    _check_found(count, args.event_id)
    _say(f"{count} event(s) will be attempted again")


def discard_parked(args: Namespace) -> None:
    """Name parked events, ask, and remove them for good."""
    with _one_line_errors():
        outbox = _outbox()
        entries = [
            entry for entry in outbox.parked(_ALL) if args.event_id is None or entry.event_id == args.event_id
        ]
        _check_found(len(entries), args.event_id)
        for entry in entries:
            _say(_in_words(entry))
        if entries and not args.yes:
            _confirm(f"Remove {len(entries)} event(s), which nobody will ever get?")
        # By their ids: what was parked meanwhile was neither named nor asked about.
        count = sum(outbox.discard_parked(event_id) for event_id in {entry.event_id for entry in entries})
    _say(f"{count} event(s) were removed")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise SystemExit("nothing was removed: add --yes to remove these")
    if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
        raise SystemExit("nothing was removed")


def _check_found(count: int, event_id: str | None) -> None:
    if event_id is not None and not count:
        raise SystemExit(f"no parked event has the id {event_id}: `parked` lists those there are")


def _in_words(entry: ParkedEntry) -> str:
    return f"{entry.event_id}  {entry.event_type}  {entry.ordering_key}  {entry.reason}"


def _say(text: str) -> None:
    """Print a line as far as the terminal can show it: ids and reasons hold what others wrote."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """End the command with one line where an option or the outbox cannot be used."""
    try:
        yield
    except WorkflowEventsError as error:
        raise SystemExit(str(error)) from None


def _outbox() -> Outbox:
    from airflow_workflow_events.relaying import outbox_for_commands
    from airflow_workflow_events.settings import Settings

    settings = Settings.load()
    for mistake in settings.mistakes:
        print(printable(mistake), file=sys.stderr)
    outbox = outbox_for_commands(settings)
    if outbox is None:
        raise SystemExit("there is no outbox: set [workflow_events] outbox_url")
    return outbox
