"""Writes the results of one sink to the database: what gathers while one settle runs goes into the next.

A result is kept until the database has it, however long that takes: `done` counts even after the lease was lost. A
lane that another transaction had locked is settled again after some milliseconds. It must not decide when to claim,
but a result that frees a lane for a claim goes with that claim, in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Claim, ClaimRequest, LaneResult, Settled
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.relay.lease import Leases
from gre_bridge.relay.schedule import ClaimSchedule

log = structlog.get_logger("gre.relay")

BATCH = 250
"""Lanes in one settle, at most."""
LINGER = 0.05
"""Seconds that a few results wait at most: nothing depends on them, and claims have the database to themselves."""
FEW = 16
"""Results that may linger, or go with a claim."""
BUSY_PAUSE = 0.01
"""Seconds before a busy lane is settled again; grows while lanes stay busy."""


class Settler:
    """The queue of results of one sink, and the task that empties it."""

    def __init__(
        self, *, store: RelayDatabase, sink: str, metrics: Metrics, leases: Leases, schedule: ClaimSchedule
    ) -> None:
        """Settled lanes leave `leases`; `schedule` is notified when freed lanes have more to send, and of room."""
        self._store = store
        self._sink = sink
        self._metrics = metrics
        self._leases = leases
        self._schedule = schedule
        self._queue: list[LaneResult] = []
        self._busy: list[LaneResult] = []
        self._writing: list[LaneResult] = []
        self._more: set[str] = set()
        """Lanes in hand that have deliveries beyond those that were claimed."""
        self._wanted = False
        """True if a result in the queue frees a lane that has more deliveries."""
        self._all_busy = False
        self._pause = BUSY_PAUSE
        self._call = asyncio.Lock()
        self._recovered = asyncio.Event()
        self._flushing = False
        self._some = asyncio.Event()
        self._now = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pending(self) -> int:
        """Lanes whose result waits to be written."""
        return len(self._queue) + len(self._busy)

    def has(self, lane: str) -> bool:
        """Return True if a result of the lane is not in the database yet."""
        return any(
            r.lane_key == lane for results in (self._queue, self._busy, self._writing) for r in results
        )

    def put(self, result: LaneResult) -> None:
        """Have a lane's result written."""
        self._queue.append(result)
        self._idle.clear()
        self._some.set()
        many = len(self._queue) > FEW
        if many or result.failure is not None or result.retry_in is not None:
            self._now.set()
        if result.lane_key in self._more and not result.keep:
            self._more.discard(result.lane_key)
            if not many:  # many are written at once, before a claim could find what they free
                self._wanted = True
                self._schedule.notify()

    def add_work(self, lane: str) -> None:
        """Note that a lane in hand has more deliveries: its result is to be settled with the next claim."""
        if lane in self._more:
            return
        if _frees(self._queue, lane):
            self._wanted = True
        elif not _frees(self._busy, lane) and not _frees(self._writing, lane):
            self._more.add(lane)

    def retry_now(self) -> None:
        """The database recovered: cancel the current backoff."""
        self._recovered.set()

    async def flush(self) -> None:
        """Return when everything put so far is in the database; from now on nothing lingers."""
        self._flushing = True
        self._now.set()
        await self._idle.wait()

    async def claim(self, request: ClaimRequest) -> Claim:
        """Claim lanes; results that free a lane for this claim are settled in the same call, before it.

        Raises the BridgeError of the call; the results are then settled without a claim.
        """
        batch = self._take_for_claim()
        if not batch:
            return await self._store.claim(request)
        async with self._call:
            self._writing = batch
            try:
                settled, claim = await self._store.exchange(batch, request)
            except BridgeError:
                self._queue[:0] = batch
                self._now.set()
                raise
            finally:
                self._writing = []
                self._some.set()
            self._record(batch, settled)
        return claim

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            await self._wait()
            async with self._call:
                if batch := self._take():
                    self._writing = batch
                    settled = await self._settle(batch)
                    self._writing = []
                    self._record(batch, settled)
                    if settled.waiting:
                        self._schedule.notify()

    async def _wait(self) -> None:
        """Return when there is something to write and nothing more to wait for."""
        if not self._queue or self._all_busy:
            if not (self._queue or self._busy or self._writing):
                self._idle.set()
            try:
                async with asyncio.timeout(self._pause if self._busy or self._all_busy else None):
                    await self._some.wait()
            except TimeoutError:
                self._pause = min(self._pause * 2, 0.25)
        self._some.clear()
        # A busy lane does not linger: another transaction writes to it, so it has more to send.
        if len(self._queue) <= FEW and not (self._busy or self._flushing or self._now.is_set()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self._now.wait()
        self._now.clear()

    def _take(self) -> list[LaneResult]:
        """The results of the next settle; busy ones come last, so that they hold up nothing but their own lane."""
        held = {result.lane_key for result in self._busy}
        results = [result for result in self._queue if result.lane_key not in held]
        results += self._busy + [result for result in self._queue if result.lane_key in held]
        batch, self._queue, self._busy = results[:BATCH], results[BATCH:], []
        return batch

    def _take_for_claim(self) -> list[LaneResult]:
        """The results to be settled with a claim: only if one is wanted, and never beside another settle."""
        wanted, self._wanted = self._wanted, False
        if not wanted:
            return []
        if self._call.locked() or self.pending > FEW:
            self._now.set()
            return []
        return self._take()

    def _record(self, batch: list[LaneResult], settled: Settled) -> None:
        self._busy = [result for result in batch if result.lane_key in settled.busy]
        self._all_busy = len(self._busy) == len(batch)
        if not self._busy:
            self._pause = BUSY_PAUSE
        written = [result for result in batch if result.lane_key not in settled.busy]
        if lost := settled.lost & {result.lane_key for result in written}:
            self._metrics.lost_leases.labels(self._sink).inc(len(lost))
        self._leases.settled(written)
        self._schedule.notify_room()

    async def _settle(self, batch: list[LaneResult]) -> Settled:
        """Settle until the database answers; a batch that it refuses for good is halved down to the guilty result."""
        try:
            return await AsyncRetrying(
                retry=retry_if_exception_type((TransientError, ConfigurationError)),
                wait=wait_random_exponential(0.1, max=5),
                sleep=self._sleep,
                before_sleep=self._failed,
                reraise=True,
            )(self._store.settle, sink=self._sink, results=batch)
        except PermanentError as error:
            self._metrics.database_errors.labels(error.kind).inc()
            return await self._divide(batch, error)

    async def _sleep(self, seconds: float) -> None:
        self._recovered.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._recovered.wait()

    def _failed(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        kind = error.kind if isinstance(error, BridgeError) else "bug"
        self._metrics.database_errors.labels(kind).inc()
        if attempt.attempt_number == 1:
            log.warning("settle_failed", sink=self._sink, error=str(error), kind=kind)

    async def _divide(self, batch: list[LaneResult], error: BridgeError) -> Settled:
        if len(batch) == 1:
            # The lane is sent again when its lease has run out: a repeat is better than a loss.
            self._leases.refused(batch[0])
            log.error("settle_refused", sink=self._sink, lane=batch[0].lane_key, error=str(error))
            return Settled(frozenset(), frozenset(), 0)
        half = len(batch) // 2
        first, second = await self._settle(batch[:half]), await self._settle(batch[half:])
        return Settled(first.busy | second.busy, first.lost | second.lost, first.waiting + second.waiting)


def _frees(results: Iterable[LaneResult], lane: str) -> bool:
    return any(r.lane_key == lane and not r.keep for r in results)
