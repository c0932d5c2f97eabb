"""Deletions: deletes over the Storage API what the database has given up, since SQL cannot delete the bytes.

Each name is settled by itself: one that cannot be deleted waits longer and longer, and keeps no other. The job also has the
database give up files that no message has taken for a day, and exports what waits.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from gre_bridge.db.media import DeletionClaim, StorageState
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.jobs.loop import JobLoop, Pause
from gre_bridge.metrics import Metrics
from gre_bridge.storage.bucket import BUCKET

log = structlog.get_logger("gre.jobs")

INTERVAL = 15.0
"""Seconds between two calls while nothing is to be deleted."""
SWEEP_INTERVAL = 60.0
"""Seconds between two searches for files that nobody sent, and two readings of the metrics."""
NAMES = 100
"""Names of one call, and files of one sweep."""
LEASE = 180.0
"""Seconds after which another worker may delete a name."""
WITHIN = 120.0
"""Seconds for the calls to Storage of one claim; what is left then waits for the next one."""
FAILURES = 5
"""Failures in a row, name by name, after which Storage counts as unavailable."""
OUTAGE, LONGEST_OUTAGE = 1.0, 60.0
"""First and longest pause in seconds after a claim of which nothing could be deleted."""


class DeletionStore(Protocol):
    """The database, as the job needs it. The methods raise BridgeError."""

    async def claim_deletions(self, worker: str, *, limit: int, lease: float) -> DeletionClaim:
        """Lease names that are due."""

    async def settle_deletions(self, worker: str, done: Sequence[str], failed: dict[str, str]) -> int:
        """Record the names that were deleted, and of the others the code of the failure; returns the number of those gone."""

    async def sweep_files(self, *, limit: int) -> tuple[int, bool]:
        """Give up files that no message has taken for a day; returns their number, and True if there may be more."""

    async def state(self) -> StorageState:
        """Return how files and deletions are doing."""


class Objects(Protocol):
    """Storage, as the job needs it. The methods raise BridgeError."""

    async def delete(self, bucket: str, names: Sequence[str]) -> frozenset[str]:
        """Delete objects; returns the names that were deleted."""


class DeletionJob(JobLoop):
    """Has given-up objects deleted."""

    name = "deletions"

    def __init__(
        self,
        *,
        store: DeletionStore,
        objects: Objects,
        metrics: Metrics,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` in seconds. See JobLoop."""
        super().__init__(metrics=metrics, jitter=jitter)
        self._store = store
        self._objects = objects
        self._clock = clock
        self._worker = str(uuid.uuid4())
        self._sweep_at = -SWEEP_INTERVAL
        self._outages = 0

    async def _call(self) -> Pause:
        more = False
        if self._clock() >= self._sweep_at:
            self._export(await self._store.state())
            swept, more = await self._store.sweep_files(limit=NAMES)
            self._metrics.files_swept.inc(swept)
            if not more:
                self._sweep_at = self._clock() + SWEEP_INTERVAL
        claim = await self._store.claim_deletions(self._worker, limit=NAMES, lease=LEASE)
        if not claim.names:
            self._outages = 0
            longest = INTERVAL if claim.next_in is None else min(max(claim.next_in, 1.0), INTERVAL)
            return Pause(0.0, 0.0) if more else Pause(longest, longest)
        done, failed = await self._delete(claim.names)
        gone = await self._store.settle_deletions(self._worker, done, failed)
        kept = len(claim.names) - gone
        self._metrics.storage_deletions.labels("done").inc(gone)
        self._metrics.storage_deletions.labels("failed").inc(kept)
        if kept:
            log.warning("deletions_postponed", count=kept, code=next(iter(failed.values()), "still_there"))
        if gone:
            self._outages = 0
            return Pause(0.0, 0.0)
        self._outages += 1
        return self._backoff(OUTAGE, LONGEST_OUTAGE, self._outages - 1)

    def _export(self, state: StorageState) -> None:
        """Export what waits: every worker exports the same values."""
        metrics = self._metrics
        metrics.files_waiting.set(state.examinations.count)
        metrics.files_oldest_age.set(state.examinations.oldest)
        metrics.files_failing.set(state.examinations.failing)
        metrics.deletions_waiting.set(state.deletions.count)
        metrics.deletions_oldest_age.set(state.deletions.oldest)

    async def _delete(self, names: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
        """Delete the names, all at once if that succeeds. Returns those that were deleted or missing, and codes for the others.

        What Storage leaves out of its answer is missing, or may not be deleted: only the database can tell.
        """
        try:
            await self._objects.delete(BUCKET, names)
        except BridgeError as error:
            if len(names) == 1 or isinstance(error, ConfigurationError) or error.code == "connect":
                return [], dict.fromkeys(names, _code(error))
            return await self._delete_singly(names)
        return names, {}

    async def _delete_singly(self, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Find out which name it was. The order is a random one, so that no name is always behind those that fail."""
        done: list[str] = []
        failed: dict[str, str] = {}
        end, in_a_row, code = self._clock() + WITHIN, 0, "storage_slow"
        for name in random.sample(names, len(names)):
            if in_a_row >= FAILURES or self._clock() >= end:
                failed[name] = code
                continue
            try:
                await self._objects.delete(BUCKET, [name])
            except BridgeError as error:
                failed[name] = code = _code(error)
                in_a_row += 1
            else:
                done.append(name)
                in_a_row = 0
        return done, failed


def _code(error: BridgeError) -> str:
    return f"storage_{error.code}"[:40]
