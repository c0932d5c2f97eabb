"""The times at which the assignment job calls the database, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gre_bridge.db.types import Assignments
from gre_bridge.jobs.assignment import DEBOUNCE, INTERVAL, LONGEST_BUSY_PAUSE, OFF_INTERVAL, AssignmentJob
from gre_bridge.jobs.loop import FIRST_BACKOFF, LONGEST_BACKOFF
from gre_bridge.metrics import Metrics
from tests.support.relay import DOWN, START, elapse, now, until, virtual
from tests.support.waiting import pause

OFF = Assignments(enabled=False)
IDLE = Assignments(enabled=True)
BUSY = Assignments(enabled=True, busy=True)
MORE = Assignments(enabled=True, more=True, assigned=20)
LATENCY = 0.01


class Desk:
    """A database with scripted answers that records the times of the calls."""

    def __init__(self, answer: Assignments | Exception = IDLE) -> None:
        self.answer: Callable[[], Assignments | Exception] = lambda: answer
        self.times: list[float] = []
        self.flying = 0

    async def assign_waiting(self) -> Assignments:
        assert self.flying == 0, "one call at a time"
        self.times.append(now() - START)
        self.flying += 1
        try:
            await pause(LATENCY, "latency of the server")
        finally:
            self.flying -= 1
        answer = self.answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def gaps(self) -> list[float]:
        """Pauses between two calls."""
        return [round(b - a - LATENCY, 6) for a, b in zip(self.times, self.times[1:], strict=False)]


@asynccontextmanager
async def running(desk: Desk, metrics: Metrics | None = None) -> AsyncIterator[AssignmentJob]:
    job = AssignmentJob(store=desk, metrics=metrics or Metrics(), jitter=lambda: 1.0)
    task = asyncio.create_task(job.run())
    try:
        yield job
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=60)


def series(*answers: Assignments | Exception, then: Assignments | Exception = IDLE) -> Callable[[], Any]:
    left = list(answers)
    return lambda: left.pop(0) if left else then


@virtual
async def test_while_assignment_is_off_only_the_timer_calls() -> None:
    desk = Desk(OFF)
    async with running(desk) as job:
        for _ in range(600):
            job.notify()
            await elapse(0.1)
    assert set(desk.gaps()) == {OFF_INTERVAL}
    assert len(desk.times) == 4  # in a minute


@virtual
async def test_assignment_that_is_switched_on_is_noticed_by_the_timer() -> None:
    desk = Desk(OFF)
    async with running(desk) as job:
        await elapse(1)
        desk.answer = lambda: IDLE
        await elapse(OFF_INTERVAL)
        calls = len(desk.times)
        job.notify()
        await elapse(LATENCY)
        assert len(desk.times) == calls + 1


@virtual
async def test_a_wakeup_leads_to_a_call_at_once() -> None:
    desk = Desk()
    async with running(desk) as job:
        await elapse(2)
        job.notify()
        await elapse(LATENCY)
    assert desk.times == [0.0, 2.0]


@virtual
async def test_wakeups_of_a_busy_desk_are_gathered() -> None:
    desk = Desk()
    async with running(desk) as job:
        for _ in range(1000):
            job.notify()
            await elapse(0.001)
        await elapse(1)
    assert len(desk.times) <= 1 / (DEBOUNCE + LATENCY) + 2
    assert set(desk.gaps()) == {DEBOUNCE}


@virtual
async def test_a_wakeup_during_a_call_leads_to_another_call() -> None:
    """The call may have read the queue before the session was committed."""
    desk = Desk()
    async with running(desk) as job:
        await elapse(LATENCY / 2)
        job.notify()
        await elapse(1)
    assert desk.times == [0.0, pytest.approx(LATENCY + DEBOUNCE)]


@virtual
async def test_what_no_wakeup_announces_is_found_by_the_timer() -> None:
    desk = Desk()
    async with running(desk):
        await elapse(60)
    assert set(desk.gaps()) == {INTERVAL}


@virtual
async def test_it_calls_again_at_once_while_there_is_more_to_assign() -> None:
    desk, metrics = Desk(), Metrics()
    desk.answer = series(MORE, MORE, Assignments(enabled=True, assigned=3, returned=1))
    async with running(desk, metrics):
        await elapse(1)
    assert desk.gaps() == [0.0, 0.0]
    assert metrics.registry.get_sample_value("gre_sessions_assigned_total") == 43
    assert metrics.registry.get_sample_value("gre_sessions_returned_total") == 1


@virtual
async def test_while_another_worker_assigns_it_asks_again_after_some_milliseconds() -> None:
    desk, metrics = Desk(BUSY), Metrics()
    async with running(desk, metrics):
        await elapse(1000)
        gaps = desk.gaps()
        desk.answer = lambda: IDLE
        await elapse(LONGEST_BUSY_PAUSE)
        calls = len(desk.times)
        await elapse(INTERVAL / 2)
        assert len(desk.times) == calls, "it is done"
        desk.answer = lambda: BUSY
        await elapse(INTERVAL)
        assert desk.gaps()[calls] == gaps[0], "the pauses begin anew"
    assert gaps[0] <= 0.02
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_BUSY_PAUSE
    assert metrics.registry.get_sample_value("gre_assignment_busy_total") >= 20


@virtual
@pytest.mark.parametrize("error", [DOWN, ZeroDivisionError("a bug with chat text in its message")])
async def test_a_failure_is_retried_after_growing_pauses_and_ends_nothing(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, metrics = Desk(error), Metrics()
    async with running(desk, metrics) as job:
        await elapse(120)
        gaps = desk.gaps()
        desk.answer = lambda: IDLE
        await elapse(LONGEST_BACKOFF)
        calls = len(desk.times)
        job.notify()
        await until(lambda: len(desk.times) == calls + 1, 1)
    assert gaps[0] == FIRST_BACKOFF
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_BACKOFF
    assert len(gaps) < 15
    said = capsys.readouterr().out
    assert said.count("assignment_failed") == 1
    assert said.count("assignment_recovered") == 1
    assert "chat text" not in said
