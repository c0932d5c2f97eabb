"""The worker's side of a lease: what one claim took, and until when it may be sent."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Lease:
    """Lanes leased by one claim under one token.

    `deadline` is on the worker's own clock, measured from before the claim was asked for, so it is
    never later than the database's. `lanes` are those still in hand, `lost` those taken over by others.
    """

    token: str
    deadline: float
    lanes: set[str] = field(default_factory=set)
    lost: frozenset[str] = frozenset()
