"""Threads wait for reports while exactly one of them polls."""

from __future__ import annotations

import math
import queue
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from airflow_workflow_events.kafka import polling
from airflow_workflow_events.kafka.polling import Poller, Waitable
from tests.waiting import await_condition


class FakeClient:
    """Serves one report a poll, and notices when two threads poll at once."""

    def __init__(self) -> None:
        self.reports: queue.Queue[Waitable] = queue.Queue()
        self.polls = 0
        self.overlaps = 0
        self._polling = threading.Lock()

    def poll(self, timeout: float) -> int:
        if not self._polling.acquire(blocking=False):
            self.overlaps += 1
            return 0
        try:
            self.polls += 1
            if timeout <= 0:
                self.reports.get_nowait().finish()
            else:
                self.reports.get(timeout=timeout).finish()
        except queue.Empty:
            return 0
        else:
            return 1
        finally:
            self._polling.release()

    def __len__(self) -> int:
        return 1  # there may always be more

    def flush(self, timeout: float) -> int:
        deadline = monotonic() + timeout
        while not self.reports.empty() and monotonic() < deadline:
            self.poll(0)
        return self.reports.qsize()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def unwaited() -> set[Waitable]:
    return set()


@pytest.fixture
def poller(client: FakeClient, unwaited: set[Waitable]) -> Poller:
    return Poller(client, unwaited)


def test_what_is_done_already_needs_no_poll(client: FakeClient, poller: Poller) -> None:
    done = Waitable()
    done.finish()

    assert poller.wait(done, math.inf)
    assert client.polls == 0


def test_a_lone_waiter_polls_itself_without_another_thread(client: FakeClient, poller: Poller) -> None:
    waitable = Waitable()
    client.reports.put(waitable)
    threads = threading.active_count()

    assert poller.wait(waitable, math.inf)
    assert threading.active_count() == threads


def test_waiting_ends_at_the_deadline(poller: Poller) -> None:
    started = monotonic()

    assert not poller.wait(Waitable(), started + 0.2)
    assert 0.15 < monotonic() - started < 10


def test_a_deadline_that_has_passed_does_not_poll(client: FakeClient, poller: Poller) -> None:
    assert not poller.wait(Waitable(), monotonic() - 1)
    assert client.polls == 0


def test_many_waiters_all_get_their_reports_and_never_poll_at_once(
    client: FakeClient, poller: Poller
) -> None:
    waitables = [Waitable() for _ in range(400)]

    def wait(start: int) -> bool:
        return all(poller.wait(waitable, monotonic() + 30) for waitable in waitables[start::8])

    with ThreadPoolExecutor(8) as threads:
        results = threads.map(wait, range(8))
        for waitable in reversed(waitables):
            client.reports.put(waitable)

        assert all(results)
    assert client.overlaps == 0


def test_a_waiter_whose_report_another_thread_served_wakes_at_once(
    client: FakeClient, poller: Poller
) -> None:
    first, second = Waitable(), Waitable()
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(poller.wait, first, monotonic() + 30)
        await_condition(lambda: client.polls, timeout_seconds=10, what="a leader")
        follower = threads.submit(poller.wait, second, monotonic() + 30)
        await_condition(lambda: second.signal or second.done, timeout_seconds=10, what="a follower")
        client.reports.put(second)

        assert follower.result(10)
        assert not first.done
        client.reports.put(first)
        assert leader.result(10)


def test_the_lead_is_handed_over_when_the_leader_leaves_without_its_report(
    client: FakeClient, poller: Poller
) -> None:
    lost, found = Waitable(), Waitable()
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(poller.wait, lost, monotonic() + 0.3)
        await_condition(lambda: client.polls, timeout_seconds=10, what="a leader")
        follower = threads.submit(poller.wait, found, monotonic() + 30)

        assert not leader.result(10)
        client.reports.put(found)
        assert follower.result(10)


def test_the_background_thread_serves_what_nobody_waits_for(
    client: FakeClient, unwaited: set[Waitable], poller: Poller
) -> None:
    waitables = [Waitable() for _ in range(20)]
    unwaited.update(waitables)

    poller.serve_in_background()
    for waitable in waitables:
        client.reports.put(waitable)

    await_condition(
        lambda: all(waitable.done for waitable in waitables), timeout_seconds=10, what="all reports"
    )
    unwaited.clear()
    poller.stop()


def test_the_background_thread_ends_when_there_is_nothing_left_to_do_and_starts_again_when_there_is(
    monkeypatch: pytest.MonkeyPatch, client: FakeClient, unwaited: set[Waitable], poller: Poller
) -> None:
    monkeypatch.setattr(polling, "_LINGER_SECONDS", 0.05)
    for _ in range(3):
        waitable = Waitable()
        unwaited.add(waitable)
        poller.serve_in_background()
        client.reports.put(waitable)
        await_condition(lambda found=waitable: found.done, timeout_seconds=10, what="the report")  # type: ignore[misc]
        unwaited.clear()

        await_condition(lambda: poller._background is None, timeout_seconds=10, what="the thread's end")


def test_an_idle_poller_that_was_forgotten_is_freed(
    monkeypatch: pytest.MonkeyPatch, client: FakeClient
) -> None:
    monkeypatch.setattr(polling, "_LINGER_SECONDS", 0.05)
    poller = Poller(client, ())
    poller.serve_in_background()
    reference = weakref.ref(poller)

    del poller

    await_condition(lambda: reference() is None, timeout_seconds=10, what="the poller to be freed")


def test_stopping_ends_the_background_thread_even_with_work_left(
    unwaited: set[Waitable], poller: Poller
) -> None:
    unwaited.add(Waitable())
    poller.serve_in_background()
    thread = poller._background
    assert thread is not None

    poller.stop()

    assert not thread.is_alive()


def test_stopping_what_never_ran_in_the_background_does_nothing(poller: Poller) -> None:
    poller.stop()


def test_flushing_says_whether_everything_has_its_report(client: FakeClient, poller: Poller) -> None:
    waitable = Waitable()
    client.reports.put(waitable)

    assert poller.flush(math.inf)
    assert waitable.done
    client.reports.put(Waitable())
    assert not poller.flush(monotonic() - 1)


def test_serving_without_time_only_looks(client: FakeClient, poller: Poller) -> None:
    waitable = Waitable()
    client.reports.put(waitable)

    poller.serve(0)

    assert waitable.done


def test_what_is_done_no_longer_keeps_its_owner_alive() -> None:
    waitable = Waitable()
    waitable.owner = object()

    waitable.finish()

    assert waitable.owner is None
