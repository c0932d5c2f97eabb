"""The times at which the timer job calls the database, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gre_bridge.db.types import Tick
from gre_bridge.jobs.loop import FIRST_BACKOFF, LONGEST_BACKOFF
from gre_bridge.jobs.timers import INTERVAL, LONGEST_LOCKED_PAUSE, OFF_INTERVAL, TimerJob
from gre_bridge.metrics import Metrics
from tests.support.relay import DOWN, START, elapse, now, virtual

LATE = 300.0


class Timers:
    """A database with scripted answers that records the times of the calls."""

    def __init__(self, answer: Callable[[], Tick | Exception]) -> None:
        self.answer = answer
        self.times: list[float] = []

    async def tick(self, *, late_after: float) -> Tick:
        assert late_after == LATE
        self.times.append(now() - START)
        answer = self.answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def gaps(self) -> list[float]:
        return [round(b - a, 6) for a, b in zip(self.times, self.times[1:], strict=False)]


@asynccontextmanager
async def running(timers: Timers, metrics: Metrics | None = None) -> AsyncIterator[None]:
    job = TimerJob(store=timers, metrics=metrics or Metrics(), late_after=LATE, jitter=lambda: 1.0)
    task = asyncio.create_task(job.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=60)


@virtual
async def test_it_calls_when_the_next_timer_is_due() -> None:
    timers = Timers(lambda: Tick(enabled=True, next_in=max(3.25 - (now() - START), 0.0) or None))
    async with running(timers):
        await elapse(3.5)
    assert timers.times == [0.0, 3.25]


@virtual
async def test_a_timer_that_is_due_later_delays_no_look_at_new_ones() -> None:
    timers = Timers(lambda: Tick(enabled=True, next_in=86_400.0))
    async with running(timers):
        await elapse(60)
    assert set(timers.gaps()) == {INTERVAL}


@virtual
async def test_while_nothing_can_start_a_timer_it_calls_four_times_a_minute() -> None:
    timers = Timers(lambda: Tick(enabled=False))
    async with running(timers):
        await elapse(59)
    assert len(timers.times) == 4
    assert set(timers.gaps()) == {OFF_INTERVAL}


@virtual
async def test_it_calls_again_at_once_while_due_timers_are_left_and_counts_what_was_done() -> None:
    left = [Tick(enabled=True, next_in=-1.5, handled=50, sent=20, closed=2), Tick(enabled=True, next_in=0.0, handled=50),
            Tick(enabled=True, handled=3, skipped=2, failed=1)]  # fmt: skip
    metrics = Metrics()
    timers = Timers(lambda: left.pop(0) if left else Tick(enabled=True))
    async with running(timers, metrics):
        await elapse(1)

    def total(result: str) -> float | None:
        return metrics.registry.get_sample_value("gre_timed_replies_total", {"result": result})

    assert timers.times == [0.0, 0.0, 0.0]
    assert [total(result) for result in ("sent", "skipped", "failed")] == [20, 2, 1]
    assert metrics.registry.get_sample_value("gre_sessions_closed_idle_total") == 2
    assert metrics.registry.get_sample_value("gre_timers_overdue_seconds") == 0


@virtual
async def test_while_the_sessions_of_due_timers_are_locked_it_asks_again_after_growing_pauses() -> None:
    timers, metrics = Timers(lambda: Tick(enabled=True, next_in=-7.0)), Metrics()
    async with running(timers, metrics):
        await elapse(60)
        assert metrics.registry.get_sample_value("gre_timers_overdue_seconds") == 7
    assert timers.gaps()[0] < 0.1
    assert timers.gaps() == sorted(timers.gaps())
    assert timers.gaps()[-1] == LONGEST_LOCKED_PAUSE


@virtual
@pytest.mark.parametrize("error", [DOWN, ZeroDivisionError("a bug with chat text in its message")])
async def test_a_failure_is_retried_after_growing_pauses_and_ends_nothing(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    timers = Timers(lambda: error)
    async with running(timers):
        await elapse(120)
        gaps = timers.gaps()
        timers.answer = lambda: Tick(enabled=True)
        await elapse(LONGEST_BACKOFF)
    assert gaps[0] == FIRST_BACKOFF
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_BACKOFF
    said = capsys.readouterr().out
    assert said.count("timers_failed") == 1
    assert said.count("timers_recovered") == 1
    assert "chat text" not in said
