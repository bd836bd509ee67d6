"""The consumer for asyncio: the same promises, and the event loop is never blocked."""

# ruff: noqa: ASYNC109, TID253 - timeouts are part of the interface; this module is for asyncio

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from signal import SIGINT, SIGTERM, Signals
from time import monotonic
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from airflow_workflow_events.errors import ConsumerClosedError
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.config import check_whole_number
from airflow_workflow_events.kafka.consumer import Retries, WorkflowEventConsumer, received_event
from airflow_workflow_events.kafka.intake import ReceivedEvent, Taken
from airflow_workflow_events.kafka.producer import CONNECT_TIMEOUT_MS

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _with_parameters_of(
    _constructor: Callable[Concatenate[WorkflowEventConsumer, _P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[AsyncWorkflowEventConsumer, _P], None]]:
    """Say for type checkers that a constructor takes the parameters of the synchronous one."""
    return lambda constructor: constructor


class AsyncWorkflowEventConsumer:
    """Reads workflow events in asyncio code; for use with ``async with`` and ``async for``.

    Takes the parameters of :class:`~airflow_workflow_events.kafka.consumer.WorkflowEventConsumer` and keeps
    its promises. With ``connect=True`` (default) it proves that a broker answers when it is entered or
    started. Everything that waits for Kafka does so in one thread of its own.

    Raises:
        ConfigurationError: a setting or a combination is wrong.
    """

    @_with_parameters_of(WorkflowEventConsumer.__init__)
    def __init__(
        self, *args: Any, connect: bool = True, connect_timeout_ms: int = CONNECT_TIMEOUT_MS, **options: Any
    ) -> None:
        check_whole_number("connect_timeout_ms", connect_timeout_ms, minimum=1)
        self._consumer = WorkflowEventConsumer(*args, connect=False, **options)
        self._connect = connect
        self._connect_timeout_seconds = connect_timeout_ms / 1000
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workflow-events-consumer")
        self._pulling: asyncio.Future[list[Taken]] | None = None
        self._waiting: deque[Taken] = deque()
        self._in_hand: Taken | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._settle()
        await self.close()

    async def __aiter__(self) -> AsyncIterator[WorkflowEvent]:
        async for received in self.records():
            yield received.event

    @property
    def poison_count(self) -> int:
        """How many messages were no workflow event."""
        return self._consumer.poison_count

    @property
    def repeated_count(self) -> int:
        """How many events were passed over because ``seen`` had them."""
        return self._consumer.repeated_count

    async def start(self) -> None:
        """Prove that a broker answers, unless ``connect=False``.

        Raises:
            KafkaConnectionError: none answered within ``connect_timeout_ms``.
            KafkaAuthenticationError: the broker refused the credentials or the certificate.
        """
        if self._connect:
            try:
                await self._in_thread(self._consumer.check_connection, self._connect_timeout_seconds)
            except BaseException:  # a cancellation, too, must not leave a client behind
                await asyncio.shield(self.close())
                raise

    async def records(self) -> AsyncIterator[ReceivedEvent]:
        """Iterate over events together with where they were read.

        Raises:
            ConsumerClosedError: and the others, as the synchronous ``records``.
        """
        intake, timeout_seconds = self._consumer.intake, self._consumer.timeout_seconds
        idle_since = monotonic()
        while True:
            self._settle()
            while self._waiting:
                taken = self._waiting.popleft()
                if taken.event is None or intake.is_repeated(taken.event):
                    intake.handled(taken, is_new=False)
                    continue
                self._in_hand = taken
                yield received_event(taken.message, taken.event)
                self._settle()
                idle_since = monotonic()
                if intake.is_store_due:
                    await self._in_thread(intake.store)
                if intake.client.stopped:
                    return
            remaining = None
            if timeout_seconds is not None:
                if intake.client.is_waiting_for_partitions:
                    idle_since = monotonic()
                remaining = idle_since + timeout_seconds - monotonic()
                if remaining <= 0:
                    return
            self._waiting.extend(await self._pull(remaining))
            if not self._waiting and intake.client.stopped:
                return

    async def run(
        self,
        handler: Callable[[WorkflowEvent], Awaitable[object]],
        *,
        max_retries: int = 3,
        retry_backoff_ms: int = 500,
        max_retry_backoff_ms: int = 10_000,
        stop_on: Sequence[Signals] = (SIGTERM, SIGINT),
    ) -> int:
        """Await ``handler`` with each event until :meth:`stop`, or a signal.

        Parameters, result and errors are those of the synchronous ``run``.
        """
        retries = Retries(max_retries, retry_backoff_ms, max_retry_backoff_ms)
        retries.check_within(self._consumer.max_poll_interval_seconds)
        handled = 0
        async with _stopping_on(stop_on, self.stop):
            async for received in self.records():
                if await self._handle(handler, received, retries):
                    handled += 1
                elif self._consumer.intake.client.stopped:
                    self._in_hand = None  # given up between two attempts: delivered again
                    break
        return handled

    async def commit(self) -> None:
        """Take every event that was handed out as handled, commit, and wait for the broker's word.

        Raises:
            KafkaError: the broker refused, or did not answer.
        """
        self._settle()
        await self._in_thread(self._consumer.commit)

    def stop(self) -> None:
        """End the iteration after the event in hand. From any thread, or a signal handler."""
        self._consumer.stop()

    async def close(self) -> None:
        """Commit what is handled, leave the group and give the client up; see the synchronous ``close``."""
        self._waiting.clear()
        self._in_hand = None
        self._consumer.stop()  # ends a pull that is under way
        await self._in_thread(self._consumer.close)
        self._thread.shutdown(wait=False)

    def _settle(self) -> None:
        if self._in_hand is not None:
            self._consumer.intake.handled(self._in_hand, is_new=True)
            self._in_hand = None

    async def _pull(self, timeout: float | None) -> list[Taken]:
        """Pull in the thread. What a cancelled caller was waiting for is there for the next one."""
        if self._pulling is None:
            self._pulling = asyncio.ensure_future(self._in_thread(self._consumer.intake.pull, timeout))
        found = await asyncio.shield(self._pulling)
        self._pulling = None
        return found

    async def _handle(
        self, handler: Callable[[WorkflowEvent], Awaitable[object]], received: ReceivedEvent, retries: Retries
    ) -> bool:
        intake, attempts = self._consumer.intake, 0
        while True:
            try:
                await handler(received.event)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises may pass
                attempts += 1
                failure = error
            else:
                return True
            pause = retries.next_pause(received.event.event_id, attempts, failure)
            if pause is not None:
                if await self._in_thread(intake.client.wait, pause):
                    return False
            elif await self._in_thread(intake.give_up, received, failure, attempts):
                return False
            else:
                self._in_hand = None
                raise failure

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            future = asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: function(*args, **kwargs)
            )
        except RuntimeError:
            raise ConsumerClosedError("the consumer is closed: create a new one") from None
        return await future


@asynccontextmanager
async def _stopping_on(signals: Sequence[Signals], stop: Callable[[], None]) -> AsyncIterator[None]:
    """Have signals end the iteration, where the loop may handle signals: in the main thread."""
    loop = asyncio.get_running_loop()
    added = []
    try:
        for number in signals:
            loop.add_signal_handler(number, stop)
            added.append(number)
    except (ValueError, RuntimeError, NotImplementedError):
        log.debug("no signal handlers here: not the main thread")
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)
