"""``python -m airflow_workflow_events ...``: the commands of ``airflow workflow-events``, on every Airflow.

Airflow 3.1 asks no provider for commands, so ``airflow workflow-events`` exists from 3.2 on only.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

# First, as it says what to install where there is no Airflow.
import airflow_workflow_events.compat  # noqa: F401

from airflow_workflow_events.commands import command_group


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands.

    Args:
        arguments: the command's name and options. Default ``None``: those of the command line.

    Raises:
        SystemExit: with 2 where they cannot be used, or with what the command ends with.
    """
    group = command_group()
    parser = ArgumentParser(prog="python -m airflow_workflow_events", description=group.help)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in group.subcommands:
        of_command = commands.add_parser(command.name, help=command.help, description=command.help)
        for argument in command.args:
            argument.add_to_parser(of_command)
        of_command.set_defaults(func=command.func)
    found = parser.parse_args(arguments)
    found.func(found)


if __name__ == "__main__":
    main()
