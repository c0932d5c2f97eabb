"""The worker's side of a lease: what one claim took, and until when it may be sent."""

from __future__ import annotations

from collections.abc import Iterable


class Lease:
    """Lanes leased by one claim under one token, each until a deadline on the worker's own clock.

    The first deadline is measured from before the claim was asked for, so it is never later than the
    database's. A lane stays until its result is in the database, or another worker has taken it over.
    """

    def __init__(self, token: str, lanes: Iterable[str], deadline: float) -> None:
        """`deadline`: seconds on the worker's clock."""
        self.token = token
        self._until = dict.fromkeys(lanes, deadline)

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, lane: object) -> bool:
        return lane in self._until

    def holds(self, lane: str, now: float) -> bool:
        """Whether the lane may be sent at `now`."""
        return self._until.get(lane, 0.0) > now

    def due(self, before: float) -> list[str]:
        """The lanes whose deadline is earlier than `before`."""
        return [lane for lane, until in self._until.items() if until < before]

    def extend(self, lanes: Iterable[str], deadline: float) -> None:
        """Move the deadline of those of `lanes` that are still held."""
        for lane in lanes:
            if lane in self._until:
                self._until[lane] = deadline

    def drop(self, lanes: Iterable[str]) -> int:
        """Forget `lanes`: settled, or lost to another worker; returns how many were still held."""
        return sum(self._until.pop(lane, None) is not None for lane in lanes)
