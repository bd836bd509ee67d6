"""The triggerer's channel to its supervisor, made safe for threads before Airflow 3.2.2.

Triggers ask their supervisor for connections, and tell it what to mask, through one channel. Before Airflow
3.2.2 only the event loop's thread may use it: a second thread reads on an event loop of its own, gets another
one's answer or none, and the trigger process ends with "Response read out of order", all triggers with it
(apache/airflow#64620, #67380; mended by #66412). The shared consumer, the position keeper and the publisher
use the channel from their threads: there their questions are handed to the event loop, as in newer Airflows.
"""

# ruff: noqa: TID253 - this module is for asyncio

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

_TASK_RUNNER = "airflow.sdk.execution_time.task_runner"
_NAME = "SUPERVISOR_COMMS"
# Longer than a supervisor takes to look a connection up in a slow secrets backend; it ends with the process.
_ANSWER_SECONDS = 120.0


def share_supervisor_channel() -> None:
    """Let threads use the channel, if this process is a triggerer whose channel does not.

    To be called on the event loop before a thread may use it. Does nothing in any other process, in Airflow
    3.2.2 and newer, and from the second call on.
    """
    task_runner = sys.modules.get(_TASK_RUNNER)
    channel = getattr(task_runner, _NAME, None)
    if isinstance(channel, _SharedChannel) or not _belongs_to_one_thread(channel):
        return
    setattr(task_runner, _NAME, _SharedChannel(channel, asyncio.get_running_loop()))


def _belongs_to_one_thread(channel: Any) -> bool:
    # The triggerer's has the asyncio streams; where it also has a task that reads them it is safe.
    return hasattr(channel, "_async_reader") and not hasattr(channel, "start_reader")


class _SharedChannel:
    """Airflow's channel, whose questions are all asked on the triggerer's event loop.

    Args:
        channel: Airflow's own.
        loop: the event loop that reads from it, on whose thread this is made.
    """

    def __init__(self, channel: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._loop_thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send(self, msg: Any) -> Any:
        """Ask, and wait for the answer.

        Raises:
            TimeoutError: there was no answer; the question is not cancelled, as its answer may still come and
                would be taken for that of the next one.
        """
        if threading.get_ident() == self._loop_thread:
            return self._channel.send(msg)  # it refuses: waiting here would keep the answer from coming
        return asyncio.run_coroutine_threadsafe(self._channel.asend(msg), self._loop).result(_ANSWER_SECONDS)

    async def asend(self, msg: Any) -> Any:
        """Ask without blocking, on whatever event loop."""
        if asyncio.get_running_loop() is self._loop:
            return await self._channel.asend(msg)
        question = asyncio.run_coroutine_threadsafe(self._channel.asend(msg), self._loop)
        return await asyncio.shield(asyncio.wrap_future(question))
