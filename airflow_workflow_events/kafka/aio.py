"""The producer for asyncio: the same promises, and the event loop is never blocked.

confluent-kafka's own ``AIOProducer`` refuses headers (it produces in batches, which carry none), so this one
stands on :class:`~airflow_workflow_events.kafka.producer.WorkflowEventProducer` and its reporting thread.
"""

# ruff: noqa: ASYNC109, TID253 - timeouts are part of the producer's interface; this module is for asyncio

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from airflow_workflow_events.errors import KafkaError, KafkaQueueFullError, KafkaTimeoutError, printable
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.kafka.config import check_whole_number
from airflow_workflow_events.kafka.oauth import waits_for_token
from airflow_workflow_events.kafka.pending import timeout_error
from airflow_workflow_events.kafka.producer import CONNECT_TIMEOUT_MS, WorkflowEventProducer
from airflow_workflow_events.kafka.reports import DeliveryReport

log: logging.Logger = logging.getLogger(__name__)

# How long to leave the loop alone while librdkafka's queue is full, in seconds.
_QUEUE_FULL_PAUSE_SECONDS = 0.01

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _with_parameters_of(
    _constructor: Callable[Concatenate[WorkflowEventProducer, _P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[AsyncWorkflowEventProducer, _P], None]]:
    """Say for type checkers that a constructor takes the parameters of the synchronous one."""
    return lambda constructor: constructor


class _LaterProducer(WorkflowEventProducer):
    """Makes no client in its constructor where that has to wait for a token."""

    def _opens_at_once(self, config: Mapping[str, Any]) -> bool:
        return not waits_for_token(config)


_LaterProducer.__name__ = WorkflowEventProducer.__name__  # what its repr says


class AsyncWorkflowEventProducer:
    """Publishes workflow events from asyncio code; for use with ``async with``.

    Takes the parameters of :class:`~airflow_workflow_events.kafka.producer.WorkflowEventProducer`. With
    ``connect=True`` (default) it proves that a broker answers when it is entered or started rather than when
    it is constructed, because a constructor cannot wait without blocking the loop.

    Raises:
        ConfigurationError: a setting or a combination is wrong.
    """

    @_with_parameters_of(WorkflowEventProducer.__init__)
    def __init__(
        self, *args: Any, connect: bool = True, connect_timeout_ms: int = CONNECT_TIMEOUT_MS, **options: Any
    ) -> None:
        check_whole_number("connect_timeout_ms", connect_timeout_ms, minimum=1)
        self._producer: WorkflowEventProducer = _LaterProducer(
            *args, connect=False, connect_timeout_ms=connect_timeout_ms, **options
        )
        self._connect = connect
        self._opening: asyncio.Future[None] | None = None
        self._sent_early = 0  # events that were sent before there was a client
        self._connect_timeout_seconds = connect_timeout_ms / 1000

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._producer!r}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Prove that a broker answers, unless ``connect=False``.

        Raises:
            KafkaConnectionError: none answered within ``connect_timeout_ms``.
            KafkaAuthenticationError: the broker refused the credentials or the certificate.
        """
        if self._connect:
            try:
                await _in_thread(self._producer.check_connection, self._connect_timeout_seconds)
            except BaseException:  # a cancellation, too, must not leave a client behind
                await asyncio.shield(self.close(timeout=0))
                raise

    async def publish_event(
        self, event: WorkflowEvent, topic: str | None = None, timeout: float | None = None
    ) -> bool:
        """Publish one event and wait for the broker's word.

        Parameters, result and errors are those of
        :meth:`~airflow_workflow_events.kafka.producer.WorkflowEventProducer.publish_event`. Cancelling the
        call leaves the outcome unknown, like a timeout.
        """
        return (await self.deliver(event, topic, timeout)).delivered

    async def deliver(
        self, event: WorkflowEvent, topic: str | None = None, timeout: float | None = None
    ) -> DeliveryReport:
        """Publish one event and return its report; raises as :meth:`publish_event` does."""
        try:
            async with asyncio.timeout(timeout):
                await self._open()
                while True:
                    try:
                        return await asyncio.shield(self._submit(event, topic))
                    except KafkaQueueFullError:
                        await asyncio.sleep(_QUEUE_FULL_PAUSE_SECONDS)
        except TimeoutError as error:
            if isinstance(error, KafkaTimeoutError):
                raise
            raise timeout_error(event.event_id, timeout) from None

    async def publish_events(
        self, events: Iterable[WorkflowEvent], topic: str | None = None, timeout: float | None = None
    ) -> list[DeliveryReport]:
        """Publish many events at once, pipelined, and wait for all reports.

        Parameters, result and errors are those of
        :meth:`~airflow_workflow_events.kafka.producer.WorkflowEventProducer.publish_events`.
        """
        # Serialising thousands of events would hold the loop for milliseconds at a time; a thread does not.
        return await _in_thread(self._producer.publish_events, events, topic, timeout)

    def send(self, event: WorkflowEvent, topic: str | None = None) -> asyncio.Future[DeliveryReport]:
        """Send an event without waiting; return a future of its report, as the synchronous ``send`` does.

        Raises:
            EventTooLargeError: and the others, as :meth:`publish_event`, but for a timeout.
        """
        if self._sent_early or not self._producer.is_open:
            self._sent_early += 1
            return asyncio.ensure_future(self._send_later(event, topic))
        return self._send(event, topic)

    def _send(self, event: WorkflowEvent, topic: str | None) -> asyncio.Future[DeliveryReport]:
        try:
            return self._submit(event, topic)
        except KafkaQueueFullError as error:
            log.error("event %s was not delivered: %s", printable(event.event_id), error)
            future: asyncio.Future[DeliveryReport] = asyncio.get_running_loop().create_future()
            future.set_result(DeliveryReport(event.event_id, topic or self._producer.topic, error=error))
            return future

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent so far has its report; ``timeout`` in seconds, default: without end.

        Raises:
            KafkaTimeoutError: ``timeout`` ran out with events still under way.
        """
        await _in_thread(self._producer.flush, timeout)

    async def close(self, timeout: float | None = None) -> bool:
        """Deliver what is under way and give the client up; see the synchronous ``close``."""
        return await _in_thread(self._producer.close, timeout)

    async def _send_later(self, event: WorkflowEvent, topic: str | None) -> DeliveryReport:
        """Send an event once there is a client; those that wait for it keep their order."""
        try:
            await self._open()
        except KafkaError as error:
            log.error("event %s was not delivered: %s", printable(event.event_id), error)
            return DeliveryReport(event.event_id, topic or self._producer.topic, error=error)
        finally:
            self._sent_early -= 1
        return await self._send(event, topic)

    async def _open(self) -> None:
        """Make the client, in a thread, unless there is one."""
        if self._producer.is_open and not self._opening:
            return
        if self._opening is None:
            self._opening = asyncio.ensure_future(_in_thread(self._producer.open))
            self._opening.add_done_callback(self._forget_opening)
        await asyncio.shield(self._opening)

    def _forget_opening(self, opening: asyncio.Future[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to those who waited, if somebody did

    def _submit(self, event: WorkflowEvent, topic: str | None) -> asyncio.Future[DeliveryReport]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[DeliveryReport] = loop.create_future()
        self._producer.submit(event, topic, lambda report: _call_soon(loop, _set_result, future, report))
        return future


async def _in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run what blocks in a thread of its own.

    asyncio's executor has few threads, which others use as well: waiting for one would add to the timeout.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            _call_soon(loop, _set_exception, future, error)
        else:
            _call_soon(loop, _set_result, future, result)

    threading.Thread(target=run, name="workflow-events-async", daemon=True).start()
    return await future


def _set_result(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():  # the caller may have been cancelled
        future.set_result(result)


def _set_exception(future: asyncio.Future[_T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    """Call something on the loop from the reporting thread."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:  # the loop was closed before the report came; nobody is left to be told
        log.debug("a delivery report came after its event loop was closed")
