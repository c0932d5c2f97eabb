"""The worker's side of its leases: which lanes it has in hand, and until when each may be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gre_bridge.db.types import LaneResult


class Lease:
    """Lanes leased by one claim under one token, each until a deadline on the worker's own clock.

    The first deadline is measured from before the claim was made, so it is never later than the database's. A lane
    stays until its result is in the database, or until another worker has taken it over.
    """

    def __init__(self, token: str, lanes: Iterable[str], deadline: float) -> None:
        """`deadline`: seconds on the worker's clock."""
        self.token = token
        self._until = dict.fromkeys(lanes, deadline)
        self._refused: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, lane: object) -> bool:
        return lane in self._until

    def holds(self, lane: str, now: float) -> bool:
        """Return True if the lane may be sent at `now`."""
        return self._until.get(lane, 0.0) > now

    def expiring(self, before: float) -> list[str]:
        """The lanes whose deadline is earlier than `before`."""
        return [lane for lane, until in self._until.items() if until < before]

    def extend(self, lanes: Iterable[str], deadline: float) -> None:
        """Move the deadline of those of `lanes` that are still held."""
        for lane in lanes:
            if lane in self._until:
                self._until[lane] = deadline

    def drop(self, lanes: Iterable[str]) -> int:
        """Take lanes out of the lease; returns how many were in it."""
        return sum(self._until.pop(lane, None) is not None for lane in lanes)

    def refuse(self, lane: str) -> None:
        """Take out a lane whose result the database refused: it stays leased until its deadline, but is not in hand."""
        if lane in self._until:
            self._refused[lane] = self._until.pop(lane)

    def is_held(self, now: float) -> bool:
        """Return True if a lane is in hand, or was refused and its deadline is still to come."""
        return bool(self._until) or any(until > now for until in self._refused.values())


class Leases:
    """The leases of one dispatcher, by token."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._leases.values()))

    def __contains__(self, lane: object) -> bool:
        return any(lane in lease for lease in self._leases.values())

    def add(self, lease: Lease) -> None:
        """Keep a lease until it holds no lane any more, and the deadlines of its refused lanes have passed."""
        self._leases[lease.token] = lease

    def held_tokens(self, now: float) -> tuple[str, ...]:
        """Return the tokens whose lanes must not be claimed anew. Drops leases that hold nothing any more."""
        self._leases = {token: lease for token, lease in self._leases.items() if lease.is_held(now)}
        return tuple(self._leases)

    def settled(self, results: Iterable[LaneResult]) -> None:
        """These results are in the database: their lanes are no longer in hand, but for those that it keeps."""
        for result in results:
            lease = self._leases.get(result.token)
            if lease is not None and not result.keep:
                lease.drop([result.lane_key])

    def refused(self, result: LaneResult) -> None:
        """The database refused this result for good: leave the lane to its deadline."""
        lease = self._leases.get(result.token)
        if lease is not None and not result.keep:
            lease.refuse(result.lane_key)
