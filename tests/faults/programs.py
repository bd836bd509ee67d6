"""A program of ``tests.faults.processes`` that is told what to do by lines, and answers with one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Self

PATIENCE_SECONDS = 120


class Program:
    """A process of its own, in a session of its own.

    Args:
        name: the module's name in ``tests.faults.processes``.
        *arguments: its arguments.
    """

    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.faults.processes.{name}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.clean_up()

    def answer(self) -> str:
        """Wait for its next line and return it; empty where it has ended."""
        return self._output.readline().strip()

    def expect(self, line: str) -> None:
        """Wait for its next line, which must be this one."""
        assert self.answer() == line

    def tell(self, line: str) -> None:
        """Tell it a line."""
        self._input.write(f"{line}\n")
        self._input.flush()

    def ask(self, line: str) -> str:
        """Tell it a line and return the answer."""
        self.tell(line)
        return self.answer()

    def end(self) -> None:
        """End its input, at which it ends well."""
        self._input.close()
        assert self.process.wait(PATIENCE_SECONDS) == 0

    def kill(self, pid: int | None = None) -> None:
        """Kill it, or the child of it with that id, and wait for the end."""
        os.kill(pid or self.process.pid, signal.SIGKILL)
        if pid is None:
            self.process.wait()
        else:
            self._output.read()  # which ends with whoever holds it

    def clean_up(self) -> None:
        """End whatever is left of it, children included."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._input.close()
        self._output.close()
