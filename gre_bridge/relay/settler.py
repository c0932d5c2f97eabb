"""Writes results back: whatever has gathered while one settle ran, or for a moment, goes into the next.

A result is kept until the database has it, however long that takes: `done` counts even after the lease
was lost. Lanes that were locked come back after some milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.models import LaneResult
from gre_bridge.store import JOINT_RESULTS, Settled, Store
from gre_bridge.telemetry import Metrics

log = structlog.get_logger("gre.relay")

BATCH = 250
"""Lanes in one settle, at most."""
LINGER = 0.05
"""Seconds that a few results wait at most: nobody waits for them, and the claims have the database to themselves."""
FEW = JOINT_RESULTS
"""Results that may wait for that."""
BUSY_PAUSE = 0.01
"""Seconds before a busy lane is tried again; grows while lanes stay busy."""


class Settler:
    """The queue of results of one sink, and the task that empties it."""

    def __init__(
        self,
        *,
        store: Store,
        sink: str,
        metrics: Metrics,
        on_waiting: Callable[[], None],
        on_settled: Callable[[Sequence[LaneResult]], None],
    ) -> None:
        """`on_waiting` is called when freed lanes have more to do, `on_settled` with what has been written."""
        self._store = store
        self._sink = sink
        self._metrics = metrics
        self._on_waiting = on_waiting
        self._on_settled = on_settled
        self._queue: list[LaneResult] = []
        self._busy: list[LaneResult] = []
        self._writing: list[LaneResult] = []
        self._rung: set[str] = set()
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
        if _frees(self._queue, lane):
            self._wanted = True
        elif not _frees(self._busy, lane) and not _frees(self._writing, lane):
            self._rung.add(lane)

    def more_in(self, lanes: Iterable[str]) -> None:
        """In these lanes, claimed a moment ago, there is more than the claim took: as if a bell had rung for them."""
        self._rung.update(lanes)

    def claiming(self) -> None:
        """A claim is about to be made: write now what frees a lane for it."""
        if self._wanted:
            self._wanted = False
            self._now.set()

    async def flush(self) -> None:
        """Return when everything put so far is in the database; from now on nothing lingers."""
        self._flushing = True
        self._now.set()
        await self._idle.wait()

    async def run(self) -> None:
        """Settle until cancelled."""
        pause = BUSY_PAUSE
        while True:
            if not self._queue:
                if not self._busy:
                    self._idle.set()
                try:
                    async with asyncio.timeout(pause if self._busy else None):
                        await self._some.wait()
                except TimeoutError:
                    pause = min(pause * 2, 0.25)
            self._some.clear()
            few = 0 < len(self._queue) <= FEW
            if few and not (self._busy or self._flushing or self._now.is_set()):
                # Up to a point in time that is the same for all sinks, so that they go in one call. (A busy lane is
                # one that somebody writes to: for it somebody waits.)
                moment = LINGER * (asyncio.get_running_loop().time() // LINGER + 1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(moment):
                        await self._now.wait()
            self._now.clear()
            batch = self._busy + self._queue
            batch, self._queue = batch[:BATCH], batch[BATCH:]
            self._busy = []
            if not batch:
                continue
            self._writing = batch
            settled = await self._settle(batch)
            self._writing = []
            self._busy = [result for result in batch if result.lane_key in settled.busy]
            if not self._busy:
                pause = BUSY_PAUSE
            if settled.lost:
                self._metrics.lost_leases.labels(self._sink).inc(len(settled.lost))
            if settled.waiting:
                self._on_waiting()
            self._on_settled([result for result in batch if result.lane_key not in settled.busy])

    async def _settle(self, batch: list[LaneResult]) -> Settled:
        """Settle until the database answers; what it refuses for good is halved down to the guilty lane."""
        try:
            return await AsyncRetrying(
                retry=retry_if_exception_type((TransientError, ConfigurationError)),
                wait=wait_random_exponential(0.1, max=5),
                before_sleep=self._failed,
                reraise=True,
            )(self._store.settle, sink=self._sink, results=batch)
        except PermanentError as error:
            self._metrics.store_errors.labels(error.kind).inc()
            return await self._divide(batch, error)

    def _failed(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        kind = error.kind if isinstance(error, BridgeError) else "bug"
        self._metrics.store_errors.labels(kind).inc()
        if attempt.attempt_number == 1:
            log.warning("cannot settle", sink=self._sink, error=str(error), kind=kind)

    async def _divide(self, batch: list[LaneResult], error: BridgeError) -> Settled:
        if len(batch) == 1:
            # Its lease runs out and the lane is sent again: better a repeat than a loss.
            log.error("settle refused", sink=self._sink, lane=batch[0].lane_key, error=str(error))
            return Settled(frozenset(), frozenset(), 0)
        half = len(batch) // 2
        first, second = await self._settle(batch[:half]), await self._settle(batch[half:])
        return Settled(first.busy | second.busy, first.lost | second.lost, first.waiting + second.waiting)


def _frees(results: Iterable[LaneResult], lane: str) -> bool:
    return any(result.lane_key == lane and not result.keep for result in results)
