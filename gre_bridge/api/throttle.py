"""Who asked too often with what is no valid token: budgets of failures for each address and whom its tokens name.

It counts and says how long to wait; it must not know tokens, nor keep more than a bounded memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gre_bridge.api.addresses import network

MINUTE = 60.0
ADDRESSES = 20_000
"""Addresses, and pairs of address and subject, remembered; beyond that, those that failed longest ago are forgotten."""
SHARED = 10
"""How many times one subject's budget an address has: a venue's guests, or a proxy's, share it."""


class _Budget:
    """`per_minute` failures at once, and then one each time that 1/`per_minute` of a minute has passed."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._cost = MINUTE / per_minute
        self._clock = clock
        self.paid: dict[str, float] = {}
        """Until when a key's failures are paid for; in the order of their last failure."""

    def wait(self, key: str) -> float:
        paid = self.paid.get(key)
        # (Less than a microsecond is what adding up fractions leaves.)
        over = 0.0 if paid is None else paid + self._cost - self._clock() - MINUTE
        return over if over > 1e-6 else 0.0

    def failed(self, key: str) -> None:
        now = self._clock()
        # (No more than a whole budget is owed, however many were under way before the first one failed.)
        self.paid[key] = min(max(self.paid.pop(key, now), now) + self._cost, now + MINUTE)
        while self.paid:
            oldest = next(iter(self.paid))
            if len(self.paid) <= ADDRESSES and self.paid[oldest] > now:
                break
            del self.paid[oldest]


class AuthThrottle:
    """Counts failures by address and subject, and by address alone with a larger budget.

    A subject is what a token says of itself, unproven: it keeps one bad visitor from locking out the others of its
    address. Somebody who makes subjects up meets the larger budget.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` failures of a subject from one address; `clock` gives seconds."""
        self._subjects = _Budget(per_minute, clock)
        self._addresses = _Budget(per_minute * SHARED, clock)

    def wait(self, address: str | None, subject: str = "", *, known: bool = False) -> float:
        """Seconds until this subject may try again from there; 0 now. A `known` one minds only its own budget."""
        place = network(address)
        own = self._subjects.wait(f"{place} {subject}")
        return own if known else max(own, self._addresses.wait(place))

    def wait_of_all(self, address: str | None) -> float:
        """Seconds until unknown subjects may try again from this address; 0 now."""
        return self._addresses.wait(network(address))

    def failed(self, address: str | None, subject: str = "") -> None:
        """Count one failed authentication."""
        place = network(address)
        self._subjects.failed(f"{place} {subject}")
        self._addresses.failed(place)
