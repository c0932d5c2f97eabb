"""The outbox in memory with the indexes that the tables have, for very many lanes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from gre_bridge.db.types import Claim, ClaimRequest, Lane, LaneResult
from tests.support.relay import Outbox, now


class InstantOutbox(Outbox):
    """An outbox that answers at once and keeps no list of the calls: the simulation adds their time."""

    async def _call(self, function: str, apply: Callable[[], Any], **arguments: Any) -> Any:  # noqa: ARG002 - not kept
        return apply()


class IndexedOutbox(InstantOutbox):
    """An outbox without failures and without locks of others: a claim reads no lane that it does not take.

    tests/unit/test_simulation.py compares it with the plain one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._due: list[tuple[float, str]] = []
        """(ready, lane) of each lane that has work and no lease."""
        self._leased: list[tuple[float, str]] = []
        """(end of the lease, lane) of each leased lane, and of some that are not leased any more."""

    def put(self, lane: str, *ids: str, age: float = 0.0) -> None:
        """Commit deliveries."""
        idle = self.lanes[lane].ready is None
        super().put(lane, *ids, age=age)
        if idle:
            heapq.heappush(self._due, (now() - age, lane))

    def _claim(self, request: ClaimRequest) -> Claim:
        at = now()
        self._end_leases(at)
        taken: list[Lane] = []
        emptied = found = 0
        ends: list[tuple[float, str]] = []
        while found < request.lanes and self._due and self._due[0][0] <= at:
            ready, key = heapq.heappop(self._due)
            queue = self.lanes[key]
            if queue.until > at or queue.ready != ready:
                continue  # the lane was settled after its lease had ended, and was in the heap twice
            found += 1
            if rows := queue.pending[: request.per_lane]:
                queue.lease(request.token, request.owner, request.lease)
                ends.append((queue.until, key))
                taken.append(Lane(key, tuple(row.to_delivery(at) for row in rows)))
            else:
                queue.free()
                queue.ready, emptied = None, emptied + 1
        nearest = (
            at
            if found == request.lanes
            else min((h[0][0] for h in (self._due, self._leased) if h), default=None)
        )
        for end in ends:
            heapq.heappush(self._leased, end)
        next_in = None if nearest is None else round(max(0.0, nearest - at), 4)
        return Claim(request.token, tuple(taken), next_in, emptied, 0)

    def _end_leases(self, at: float) -> None:
        """Bring the lanes whose lease has ended among those that are due, and correct the first end of a lease."""
        while self._leased:
            until, key = self._leased[0]
            queue = self.lanes[key]
            if queue.token is not None and until == queue.until > at:
                return
            heapq.heappop(self._leased)
            if queue.token is None or queue.ready is None:
                continue
            if queue.until > at:
                heapq.heappush(self._leased, (queue.until, key))
            else:
                heapq.heappush(self._due, (queue.ready, key))

    def _free(self, result: LaneResult) -> None:
        super()._free(result)
        queue = self.lanes[result.lane_key]
        queue.rows = queue.pending
        if queue.ready is not None:
            heapq.heappush(self._due, (queue.ready, result.lane_key))
