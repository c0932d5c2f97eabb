"""Writes results back: whatever has gathered while one settle ran, or for a moment, goes into the next.

A result is kept until the database has it, however long that takes: `done` counts even after the lease
was lost. Lanes that were locked come back after some milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gre_bridge.db.relay import JOINT_RESULTS, RelayDatabase, Settled
from gre_bridge.db.types import LaneResult
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.relay")

BATCH = 250
"""Lanes in one settle, at most."""
LINGER = 0.05
"""Seconds that a few results wait at most: nobody waits for them, and the claims have the database to themselves."""
FEW = JOINT_RESULTS
"""Results that may wait for that."""
FORGOTTEN = 1.0
"""Seconds of which a crash of PostgreSQL may take back the settles, which do not wait for the disk: three times
wal_writer_delay (200 ms), and some more."""
CRASH = 0.1
"""Seconds without a settle in which it may have crashed and come back."""
AGAIN = 0.25
"""Seconds before what could not be freed once more, since somebody held it, is tried again."""
OVER = 30.0
"""Seconds after which that is given up: most leases are over by then."""
BUSY_PAUSE = 0.01
"""Seconds before a busy lane is tried again; grows while lanes stay busy."""


class Settler:
    """The queue of results of one sink, and the task that empties it."""

    def __init__(
        self,
        *,
        store: RelayDatabase,
        sink: str,
        metrics: Metrics,
        on_waiting: Callable[[], None],
        on_settled: Callable[[Sequence[LaneResult]], None],
        on_forgotten: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_waiting` is called when freed lanes have more to do, `on_settled` with what has been written.

        `on_forgotten` is called when the database had forgotten some of that: it has crashed.
        """
        self._store = store
        self._sink = sink
        self._metrics = metrics
        self._on_waiting = on_waiting
        self._on_settled = on_settled
        self._on_forgotten = on_forgotten
        self._queue: list[LaneResult] = []
        self._busy: list[LaneResult] = []
        self._writing: list[LaneResult] = []
        self._rung: set[str] = set()
        self._written: deque[tuple[float, str, str]] = deque()
        self._gap = False
        self._again: dict[tuple[str, str], float] = {}
        """Lane and token of what is to be freed once more, and since when. Nobody waits for it, and it is no lane in hand."""
        self._again_at = 0.0
        self._stalled = False
        self._refused: set[str] = set()
        self._pause = BUSY_PAUSE
        self._back = asyncio.Event()
        self._flushing = False
        self._wanted = False
        self._some = asyncio.Event()
        self._now = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pending(self) -> int:
        """Lanes whose result the database does not have yet."""
        return len(self._queue) + len(self._busy)

    def has(self, lane: str) -> bool:
        """Whether a result of the lane is on its way to the database."""
        return any(r.lane_key == lane for part in (self._queue, self._busy, self._writing) for r in part)

    def put(self, result: LaneResult) -> None:
        """Have a lane's result written."""
        self._queue.append(result)
        self._idle.clear()
        self._some.set()
        many = len(self._queue) > FEW
        if many or result.failure is not None or result.retry_in is not None:
            self._now.set()
        if result.lane_key in self._rung and not result.keep:
            self._rung.discard(result.lane_key)
            if not many:  # many go by themselves, before a claim could find what they free
                self._wanted = True
                self._on_waiting()

    def rung(self, lane: str) -> None:
        """There is more in this lane, which is ours: its result goes with the next claim, and if need be calls for it."""
        if lane in self._rung:
            return
        if self._frees(self._queue, lane):
            self._wanted = True
        elif not self._frees(self._busy, lane) and not self._frees(self._writing, lane):
            self._rung.add(lane)

    def more_in(self, lanes: Iterable[str]) -> None:
        """In these lanes, claimed a moment ago, there is more than the claim took: as if a bell had rung for them."""
        self._rung.update(lanes)

    def claiming(self) -> None:
        """A claim is about to be made: write now what frees a lane for it."""
        if self._wanted:
            self._wanted = False
            self._now.set()

    def answers(self, *, leased: bool) -> None:
        """A claim was answered, perhaps after a crash: have what was settled last before it freed once more.

        A lane whose claim outlived its settle would wait for the lease. What was sent is not called done again:
        somebody may have asked for it anew. All others are not ours any more, and the answer says so. `leased` is
        whether the claim left any lane that is due to somebody else; without one nothing was forgotten so far.
        """
        now = asyncio.get_running_loop().time()
        if not self._written or not (self._gap or now - self._written[-1][0] >= CRASH):
            return
        self._gap = False
        if leased:
            for _, lane, token in self._written:
                self._again.setdefault((lane, token), now)
            self._idle.clear()
            self._some.set()
        self._forget(now)  # (what is younger, a crash may take back yet)

    def hurry(self) -> None:
        """The database is back: do not wait any longer before the next attempt."""
        self._back.set()

    async def flush(self) -> None:
        """Return when everything put so far is in the database; from now on nothing lingers."""
        self._flushing = True
        self._now.set()
        await self._idle.wait()

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            await self._wait()
            await self._write()

    async def _wait(self) -> None:
        """Return when there is something to write and nothing more to wait for."""
        if not self._queue or self._stalled:
            if not (self._queue or self._busy or self._again):
                self._idle.set()
            now = asyncio.get_running_loop().time()
            pauses = [self._pause] if self._busy or self._stalled else []
            pauses += [max(0.0, self._again_at - now)] if self._again else []
            try:
                async with asyncio.timeout(min(pauses, default=None)):
                    await self._some.wait()
            except TimeoutError:
                self._pause = min(self._pause * 2, 0.25)
        self._some.clear()
        if len(self._queue) <= FEW and not (self._busy or self._flushing or self._now.is_set()):
            # Up to a point in time that is the same for all sinks, so that they go in one call. (A busy lane is
            # one that somebody writes to: for it somebody waits.)
            moment = LINGER * (asyncio.get_running_loop().time() // LINGER + 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(moment):
                    await self._now.wait()
        self._now.clear()

    async def _write(self) -> None:
        held = {result.lane_key for result in self._busy}
        # What is busy goes behind the others, so that it holds up nothing but its own lane.
        batch = [result for result in self._queue if result.lane_key not in held]
        batch += self._busy + [result for result in self._queue if result.lane_key in held]
        batch, self._queue = batch[:BATCH], batch[BATCH:]
        self._busy = []
        again = self._due(BATCH - len(batch), {result.lane_key for result in batch})
        if not batch and not again:
            return
        self._writing = batch
        self._refused.clear()
        settled = await self._settle([*batch, *again])
        self._writing = []
        self._busy = [result for result in batch if result.lane_key in settled.busy]
        self._stalled = bool(batch) and len(self._busy) == len(batch)
        if not self._busy:
            self._pause = BUSY_PAUSE
        written = [result for result in batch if result.lane_key not in settled.busy]
        if lost := settled.lost & {result.lane_key for result in written}:
            self._metrics.lost_leases.labels(self._sink).inc(len(lost))
        if settled.waiting:
            self._on_waiting()
        self._remember(written)
        self._look_back(again, settled)
        self._on_settled(written)

    def _due(self, room: int, taken: set[str]) -> list[LaneResult]:
        """What is freed once more with the next settle: one of a lane, since its answer is by lane, and none that is `taken`."""
        now = asyncio.get_running_loop().time()
        if self._again_at > now and not self._flushing:
            return []
        due: dict[str, LaneResult] = {}
        for lane, token in self._again:
            if len(due) >= room:
                break
            if lane not in taken:
                due.setdefault(lane, LaneResult(lane, token))
        if self._again and not due:
            self._again_at = now + AGAIN
        return list(due.values())

    def _look_back(self, again: Sequence[LaneResult], settled: Settled) -> None:
        """See what was freed once more; what had been ours still, PostgreSQL had forgotten."""
        now = asyncio.get_running_loop().time()
        forgotten = []
        for result in again:
            since = self._again.pop((result.lane_key, result.token))
            if result.lane_key in settled.busy:
                if now < since + OVER:
                    self._again[result.lane_key, result.token] = since
                    self._again_at = now + AGAIN
            elif result.lane_key not in settled.lost | self._refused:
                forgotten.append(result)
        if self._flushing:  # a lane that is hardly ours is no reason to stay
            self._again.clear()
        if forgotten:
            log.warning("PostgreSQL forgot what was settled", sink=self._sink, lanes=len(forgotten))
            self._written.extend((now, result.lane_key, result.token) for result in forgotten)
            self._on_forgotten()

    def _remember(self, results: list[LaneResult]) -> None:
        """Keep what was freed within a second before now, or before the last pause."""
        now = asyncio.get_running_loop().time()
        if self._written:
            self._gap |= now - self._written[-1][0] >= CRASH
        if not self._gap:
            self._forget(now)
        freed = (result for result in results if not result.keep and result.lane_key not in self._refused)
        self._written.extend((now, result.lane_key, result.token) for result in freed)

    def _forget(self, now: float) -> None:
        while self._written and self._written[0][0] < now - FORGOTTEN:
            self._written.popleft()

    async def _settle(self, batch: list[LaneResult]) -> Settled:
        """Settle until the database answers; what it refuses for good is halved down to the guilty lane."""
        try:
            return await AsyncRetrying(
                retry=retry_if_exception_type((TransientError, ConfigurationError)),
                wait=wait_random_exponential(0.1, max=5),
                sleep=self._pause_for,
                before_sleep=self._failed,
                reraise=True,
            )(self._store.settle, sink=self._sink, results=batch)
        except PermanentError as error:
            self._metrics.database_errors.labels(error.kind).inc()
            return await self._divide(batch, error)

    async def _pause_for(self, seconds: float) -> None:
        self._back.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._back.wait()

    def _failed(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        kind = error.kind if isinstance(error, BridgeError) else "bug"
        self._metrics.database_errors.labels(kind).inc()
        if attempt.attempt_number == 1:
            log.warning("cannot settle", sink=self._sink, error=str(error), kind=kind)

    async def _divide(self, batch: list[LaneResult], error: BridgeError) -> Settled:
        if len(batch) == 1:
            # Its lease runs out and the lane is sent again: better a repeat than a loss.
            self._refused.add(batch[0].lane_key)
            log.error("settle refused", sink=self._sink, lane=batch[0].lane_key, error=str(error))
            return Settled(frozenset(), frozenset(), 0)
        half = len(batch) // 2
        first, second = await self._settle(batch[:half]), await self._settle(batch[half:])
        return Settled(first.busy | second.busy, first.lost | second.lost, first.waiting + second.waiting)

    def _frees(self, results: Iterable[LaneResult], lane: str) -> bool:
        return any(r.lane_key == lane and not r.keep for r in results)
