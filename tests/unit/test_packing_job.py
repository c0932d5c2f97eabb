"""The times at which the packing job calls the database, in virtual time."""

from __future__ import annotations

import asyncio

from gre_bridge.db.report_answers import Packing
from gre_bridge.jobs.packing import DELAY, INTERVAL, MORE, PackingJob
from gre_bridge.metrics import Metrics
from tests.support.relay import DOWN, START, elapse, now, virtual


class Store:
    """A database with scripted answers that records the times of the calls."""

    def __init__(self, *answers: Packing | Exception) -> None:
        self.answers = list(answers)
        self.times: list[float] = []

    async def pack(self) -> Packing:
        self.times.append(round(now() - START, 3))
        answer = self.answers.pop(0) if self.answers else Packing(packed=False, more=False)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def times(store: Store, seconds: float) -> list[float]:
    """Run the job for so long, and return when it called."""
    job = asyncio.create_task(PackingJob(store=store, metrics=Metrics(), jitter=lambda: 1.0).run())
    await elapse(seconds)
    job.cancel()
    await asyncio.wait({job}, timeout=60)
    return store.times


@virtual
async def test_it_waits_after_the_start_and_then_calls_rarely() -> None:
    assert await times(Store(), DELAY + 2 * INTERVAL + 1) == [DELAY, DELAY + INTERVAL, DELAY + 2 * INTERVAL]


@virtual
async def test_what_waits_is_packed_in_small_parts() -> None:
    more = Packing(packed=True, more=True)
    found = await times(Store(more, more), DELAY + INTERVAL)
    assert found == [DELAY, DELAY + MORE, DELAY + 2 * MORE]


@virtual
async def test_a_failure_is_tried_again() -> None:
    found = await times(Store(DOWN, DOWN), DELAY + 10)
    assert len(found) == 3
