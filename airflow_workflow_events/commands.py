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
from contextlib import contextmanager, suppress
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
# What a shell reports of a program that SIGPIPE or SIGINT has ended.
_BY_CLOSED_PIPE, _BY_INTERRUPT = 141, 130
# Of a process id and of a count, which no outbox comes near.
_MAX_NUMBER = 2**31 - 1


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """End the command with one line where an option, the outbox or the output cannot be used.

    Raises:
        SystemExit: with 1 and the reason, with 130 after an interrupt (ctrl-C), or with 141 and no word where
            whoever reads the output has had enough, as ``head`` has.
    """
    try:
        yield
    except WorkflowEventsError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(_BY_INTERRUPT) from None
    except _OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise SystemExit(_BY_CLOSED_PIPE) from None
        raise SystemExit(str(error)) from None


class _OutputError(Exception):
    """A line cannot be printed."""


def _number(text: str) -> int:
    # Python refuses to read a number of thousands of digits.
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) <= _MAX_NUMBER:
        raise ArgumentTypeError(f"{printable(text, 40)!r} is not a whole number from 1 to {_MAX_NUMBER}")
    return int(text)


_EVENT_ID = Arg(  # type: ignore[no-untyped-call]
    ("--event-id",), help="only this event; all parked ones by default"
)
_PARENT = Arg(  # type: ignore[no-untyped-call]
    ("--parent",),
    type=_number,
    metavar="PID",
    help="end as soon as this is not the parent process any more",
)
_YES = Arg(  # type: ignore[no-untyped-call]
    ("--yes", "-y"), action="store_true", help="do not ask"
)
_LIMIT = Arg(  # type: ignore[no-untyped-call]
    ("--limit",), type=_number, default=100, help="how many at most (default: %(default)s)"
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
        _say_if_heard(f"{error}; it is tried again")
    relaying = background_relay(outbox)
    _say_if_heard(f"relaying from {outbox.database.place}")
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


@_one_line_errors()
def show_outbox(_args: Namespace) -> None:
    """Show how much is in the outbox and which relays are at work."""
    from airflow_workflow_events.outbox.background import SILENCE_SECONDS

    outbox = _outbox()
    totals, relays = outbox.totals(), outbox.relays(SILENCE_SECONDS)
    age = "-" if totals.oldest_age_seconds is None else f"{totals.oldest_age_seconds:.1f} s"
    _say(f"outbox      {outbox.database.place}")
    _say(f"pending     {totals.pending}")
    _say(f"oldest      {age}")
    _say(f"parked      {totals.parked}")
    _say(f"size        {totals.size_bytes} bytes")
    _say(f"relays      {', '.join(relays) or 'none is at work'}")


@_one_line_errors()
def show_parked(args: Namespace) -> None:
    """List parked events, the oldest first."""
    outbox = _outbox()
    entries, total = outbox.parked(args.limit), outbox.totals().parked
    for entry in entries:
        _say(_in_words(entry))
    if not entries:
        _say("no event is parked")
    elif total > len(entries):
        _say(f"{total - len(entries)} more: raise --limit")


@_one_line_errors()
def retry_parked(args: Namespace) -> None:
    """Attempt parked events again."""
    count = _outbox().retry_parked(args.event_id)
    _check_found(count, args.event_id)
    _say(f"{count} event(s) will be attempted again")


@_one_line_errors()
def discard_parked(args: Namespace) -> None:
    """Name parked events, ask, and remove them for good."""
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
    if sys.stdin is None or not sys.stdin.isatty():
        raise SystemExit("nothing was removed: add --yes to remove these")
    try:
        answer = input(f"{question} [y/N] ")
    except (EOFError, UnicodeDecodeError):
        answer = ""
        print(file=sys.stderr)  # the question's line has no end
    except KeyboardInterrupt:
        print("\nnothing was removed", file=sys.stderr)
        raise SystemExit(_BY_INTERRUPT) from None
    if answer.strip().lower() not in {"y", "yes"}:
        raise SystemExit("nothing was removed")


def _check_found(count: int, event_id: str | None) -> None:
    if event_id is not None and not count:
        raise SystemExit(f"no parked event has the id {event_id}: `parked` lists those there are")


def _in_words(entry: ParkedEntry) -> str:
    return f"{entry.event_id}  {entry.event_type}  {entry.ordering_key}  {entry.reason}"


def _say(text: str) -> None:
    """Print a line as far as the terminal can show it: ids and reasons hold what others wrote.

    Raises:
        _OutputError: nobody can read it: a closed pipe, a full disk.
    """
    if sys.stdout is None:
        raise _OutputError("the output cannot be written: stdout is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        # What is left in the buffer would be written, and fail, once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _OutputError(f"the output cannot be written: {error.strerror}") from error


def _say_if_heard(text: str) -> None:
    """Print a line, or go on without: a relay has work to do whoever listens."""
    with suppress(_OutputError):
        _say(text)


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
