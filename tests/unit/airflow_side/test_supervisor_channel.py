"""The triggerer's channel to its supervisor, before Airflow 3.2.2: safe on the event loop's thread alone."""

# ruff: noqa: TID253 - the channel is for asyncio

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_workflow_events.notifications import WorkflowEventNotifier
from airflow_workflow_events.supervisor_channel import share_supervisor_channel
from airflow_workflow_events.waiting import EventStream
from airflow_workflow_events.watching import PositionKeeper

_TASK_RUNNER = "airflow.sdk.execution_time.task_runner"


class OlderChannel:
    """Like Airflow 3.1's ``TriggerCommsDecoder``: who reads elsewhere gets another one's answer."""

    def __init__(self) -> None:
        self._async_reader = object()
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._numbers = itertools.count()
        self._sent: list[int] = []
        self.threads: set[int] = set()

    def send(self, msg: object) -> object:
        if threading.get_ident() == threading.main_thread().ident:
            raise RuntimeError("You cannot use AsyncToSync in the same thread as an async event loop")
        return asyncio.run(self.asend(msg))

    async def asend(self, msg: object) -> object:
        self.threads.add(threading.get_ident())
        assert asyncio.get_running_loop() is self._loop, "Response read out of order"
        number = next(self._numbers)
        async with self._lock:
            self._sent.append(number)
            await asyncio.sleep(0)
            assert self._sent.pop() == number, "Response read out of order"
            return ("answer to", msg)


class NewerChannel(OlderChannel):
    async def start_reader(self) -> None:
        """As from Airflow 3.2.2 on."""


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], SimpleNamespace]:
    def put(channel: Any) -> SimpleNamespace:
        task_runner = SimpleNamespace(SUPERVISOR_COMMS=channel)
        monkeypatch.setitem(sys.modules, _TASK_RUNNER, task_runner)
        return task_runner

    return put


async def test_questions_of_many_threads_are_asked_on_the_event_loop_and_get_their_own_answers(
    install: Callable[[Any], SimpleNamespace],
) -> None:
    channel = OlderChannel()
    task_runner = install(channel)
    share_supervisor_channel()
    share_supervisor_channel()

    answers = await asyncio.gather(
        *(asyncio.to_thread(task_runner.SUPERVISOR_COMMS.send, number) for number in range(50)),
        *(task_runner.SUPERVISOR_COMMS.asend(number) for number in range(50, 100)),
    )

    assert answers == [("answer to", number) for number in range(100)]
    assert channel.threads == {threading.get_ident()}


async def test_a_question_from_another_event_loop_is_asked_on_the_triggerers(
    install: Callable[[Any], SimpleNamespace],
) -> None:
    task_runner = install(OlderChannel())
    share_supervisor_channel()

    answer = await asyncio.to_thread(lambda: asyncio.run(task_runner.SUPERVISOR_COMMS.asend("which")))

    assert answer == ("answer to", "which")


async def test_a_synchronous_question_on_the_loop_is_refused_as_airflow_refuses_it(
    install: Callable[[Any], SimpleNamespace],
) -> None:
    task_runner = install(OlderChannel())
    share_supervisor_channel()

    with pytest.raises(RuntimeError, match="AsyncToSync"):
        task_runner.SUPERVISOR_COMMS.send("which")


@pytest.mark.parametrize("channel", [NewerChannel, SimpleNamespace, lambda: None])
async def test_a_channel_that_threads_may_use_is_left_as_it_is(
    channel: Callable[[], Any], install: Callable[[Any], SimpleNamespace]
) -> None:
    task_runner = install(original := channel())

    share_supervisor_channel()

    assert task_runner.SUPERVISOR_COMMS is original


async def _stream() -> None:
    EventStream("c", None, [], {})


async def _keeper() -> None:
    await PositionKeeper("c").forget("no-such-group")


async def _deadline_alert() -> None:
    await WorkflowEventNotifier().async_notify({})


@pytest.mark.parametrize("use", [_stream, _keeper, _deadline_alert])
async def test_whatever_asks_from_a_thread_of_the_triggerer_shares_the_channel_first(
    use: Callable[[], Any], install: Callable[[Any], SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkflowEventNotifier, "_publish", lambda *_: None)
    task_runner = install(original := OlderChannel())

    await use()

    assert task_runner.SUPERVISOR_COMMS is not original
