"""The consumer for asyncio: the same promises, and the event loop is never blocked."""

# ruff: noqa: ASYNC109, TID253 - timeouts are part of the interface; this module is for asyncio

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from signal import Signals
from time import monotonic
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from airflow_workflow_events.errors import ConsumerClosedError
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.config import check_whole_number
from airflow_workflow_events.kafka.consumer import Idleness, WorkflowEventConsumer
from airflow_workflow_events.kafka.handling import (
    STOP_SIGNALS,
    Retries,
    check_handler,
    check_result,
    stopping_on,
)
from airflow_workflow_events.kafka.intake import Passed, ReceivedEvent, Taken
from airflow_workflow_events.kafka.message_headers import drop_unreadable
from airflow_workflow_events.kafka.oauth import waits_for_token
from airflow_workflow_events.kafka.producer import CONNECT_TIMEOUT_MS

_SLICE_SECONDS = 0.5

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _with_parameters_of(
    _constructor: Callable[Concatenate[WorkflowEventConsumer, _P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[AsyncWorkflowEventConsumer, _P], None]]:
    """Say for type checkers that a constructor takes the parameters of the synchronous one."""
    return lambda constructor: constructor


class _LaterConsumer(WorkflowEventConsumer):
    """Makes no client in its constructor where that has to wait for a token."""

    def _opens_at_once(self, config: Mapping[str, Any]) -> bool:
        return not waits_for_token(config)


_LaterConsumer.__name__ = WorkflowEventConsumer.__name__  # what its repr says


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
        self._consumer: WorkflowEventConsumer = _LaterConsumer(
            *args, connect=False, connect_timeout_ms=connect_timeout_ms, **options
        )
        self._connect = connect
        self._connect_timeout_seconds = connect_timeout_ms / 1000
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workflow-events-consumer")
        self._pulling: asyncio.Future[list[Taken]] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._waiting: deque[Taken] = deque()
        self._in_hand: ReceivedEvent | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._consumer!r}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._settle()
        finally:
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
            KafkaAuthenticationError: the broker refused the credentials or the certificate, or ``oauth_cb``
                gave no token.
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
        client = self._consumer.intake.client
        client.check_usable()
        idleness = Idleness(client, self._consumer.timeout_seconds)
        while True:
            if self._waiting or self._in_hand is not None:
                while (received := await self._next()) is not None:
                    yield received
                idleness.end()  # neither handling is idleness, nor passing over what nobody waits for
            if client.stopped or (remaining := idleness.remaining()) == 0:
                idleness.check_reached()
                return
            self._waiting.extend(await self._pull(remaining))

    async def _next(self) -> ReceivedEvent | None:
        """Return what is waiting next; ``None`` when there is no more or the consumer is stopped."""
        intake = self._consumer.intake
        while True:
            await self._settle()
            if intake.client.stopped or not self._waiting:
                return None
            if monotonic() > intake.behind_at:
                await self._in_thread(intake.keep_up)
                continue  # it may have been stopped meanwhile
            taken = self._waiting[0]
            # It is taken off only afterwards: a cancellation may cut in wherever something is awaited.
            is_for_somebody = await self._is_for_somebody(taken)
            self._waiting.popleft()
            if is_for_somebody and not isinstance(taken, Passed):
                drop_unreadable(taken.message)
                self._in_hand = taken
                return taken

    async def run(
        self,
        handler: Callable[[WorkflowEvent], Awaitable[object]],
        *,
        max_retries: int = 3,
        retry_backoff_ms: int = 500,
        max_retry_backoff_ms: int = 10_000,
        stop_on: Sequence[Signals] = STOP_SIGNALS,
    ) -> int:
        """Await ``handler`` with each event until :meth:`stop`, or a signal.

        Parameters, result and errors are those of the synchronous ``run``, but that the handler has to be
        ``async``.
        """
        check_handler(handler)
        retries = Retries(
            max_retries,
            retry_backoff_ms,
            max_retry_backoff_ms,
            within_seconds=self._consumer.max_poll_interval_seconds,
        )
        handled = 0
        # Not with the loop's own handlers: those that were there before could not be put back.
        with stopping_on(stop_on, self.stop):
            async for received in self.records():
                try:
                    is_handled = await self._handle(handler, received, retries)
                except BaseException:  # a cancellation, too
                    self._put_back()
                    raise
                if is_handled:
                    handled += 1
                elif self._consumer.intake.client.stopped:
                    self._put_back()  # given up between two attempts: delivered again
                    break
                else:  # it is not handled; see the synchronous one
                    self._in_hand = None
                    self._consumer.intake.move_past(received)
        return handled

    async def commit(self) -> None:
        """Take every event that was handed out as handled, commit, and wait for the broker's word.

        Raises:
            KafkaError: the broker refused, or did not answer.
        """
        await self._settle()
        await self._in_thread(self._consumer.commit)

    def stop(self) -> None:
        """End the iteration after the event in hand. From any thread, or a signal handler."""
        self._consumer.stop()

    async def close(self) -> None:
        """Commit what is handled, leave the group and give the client up; see the synchronous ``close``."""
        self._waiting.clear()
        self._in_hand = None
        self._consumer.stop()  # ends a pull that is under way
        if self._closing is None:
            # It is closed even if the caller is cancelled meanwhile, and what this leaves undone as well.
            self._closing = asyncio.ensure_future(self._in_thread(self._consumer.close))
            self._closing.add_done_callback(lambda _done: self._thread.shutdown(wait=False))
        await asyncio.shield(self._closing)

    async def _settle(self) -> None:
        taken, self._in_hand = self._in_hand, None
        if taken is not None:
            await self._wherever(self._consumer.intake.handled, taken)

    async def _is_for_somebody(self, taken: Taken) -> bool:
        """Whether to hand it out; otherwise move past it."""
        intake = self._consumer.intake
        if intake.has_moved(taken):
            return False
        if isinstance(taken, Passed) or await self._wherever(intake.is_repeated, taken.event):
            intake.move_past(taken)
            return False
        return True

    def _put_back(self) -> None:
        """Have the event in hand come next again: it is not handled."""
        if self._in_hand is not None:
            self._waiting.appendleft(self._in_hand)
            self._in_hand = None

    async def _pull(self, timeout: float | None) -> list[Taken]:
        """Pull in the thread. What a cancelled caller was waiting for is there for the next one."""
        # In slices: a program that ends without having closed the consumer waits for its threads.
        slice_seconds = _SLICE_SECONDS if timeout is None else min(timeout, _SLICE_SECONDS)
        if self._pulling is None:
            self._pulling = asyncio.ensure_future(self._in_thread(self._consumer.intake.pull, slice_seconds))
        try:
            found = await asyncio.shield(self._pulling)
        except Exception:
            self._pulling = None
            raise
        self._pulling = None  # not after a cancellation: it may have come at the very moment of the result
        return found

    async def _wherever(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call what asks who has seen an event: in the thread, unless the answer is in memory."""
        if self._consumer.intake.asks_elsewhere:
            return await asyncio.shield(self._in_thread(function, *args, **kwargs))
        return function(*args, **kwargs)

    async def _handle(
        self, handler: Callable[[WorkflowEvent], Awaitable[object]], received: ReceivedEvent, retries: Retries
    ) -> bool:
        intake, attempts = self._consumer.intake, 0
        while True:
            try:
                result: object = handler(received.event)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - whatever a handler raises may pass
                attempts += 1
                failure = error
            else:
                check_result(result, is_awaited=True)
                return True
            pause = retries.next_pause(received.event.event_id, attempts, failure)
            if pause is not None:
                if await self._in_thread(intake.client.wait, pause):
                    return False
            elif await self._in_thread(
                intake.poison.give_up, received.message, received.event.event_id, failure, attempts
            ):
                return False
            else:
                raise failure

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            future = asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: function(*args, **kwargs)
            )
        except RuntimeError:
            raise ConsumerClosedError("the consumer is closed: create a new one") from None
        return await future
