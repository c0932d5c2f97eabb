"""Throttles failed authentications: a budget of failures for each address, and for each subject at an address.

It counts failures and computes waiting times. It must not see tokens, and its memory is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gre_bridge.api.addresses import network

MINUTE = 60.0
MAX_KEYS = 20_000
"""Keys remembered in each table; beyond that, those with the oldest failure are dropped."""
ADDRESS_FACTOR = 10
"""An address has this many times the budget of one subject: the guests of a venue, or of a proxy, share it."""
ROUNDING = 1e-6
"""Seconds of error that adding up fractions may leave."""


class _Budget:
    """`per_minute` failures at once, and then one for each 1/`per_minute` of a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._cost = MINUTE / per_minute
        self._clock = clock
        self.free_at: dict[str, float] = {}
        """The time at which a key has its whole budget again; in the order of the last failures."""

    def retry_after(self, key: str) -> float:
        free_at = self.free_at.get(key)
        wait = 0.0 if free_at is None else free_at + self._cost - self._clock() - MINUTE
        return wait if wait > ROUNDING else 0.0

    def record_failure(self, key: str) -> None:
        now = self._clock()
        # At most one whole budget is used up, however many requests were in flight before the first one failed.
        self.free_at[key] = min(max(self.free_at.pop(key, now), now) + self._cost, now + MINUTE)
        while self.free_at:
            oldest = next(iter(self.free_at))
            if len(self.free_at) <= MAX_KEYS and self.free_at[oldest] > now:
                break
            del self.free_at[oldest]


class AuthThrottle:
    """Counts failures by address and subject, and by address alone with a larger budget.

    A subject is a token's unverified claim. Counting it keeps one visitor from locking out the others of its address;
    a visitor that invents subjects uses up the larger budget.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` failures of a subject from one address; `clock` returns seconds."""
        self._subjects = _Budget(per_minute, clock)
        self._addresses = _Budget(per_minute * ADDRESS_FACTOR, clock)

    def retry_after(self, address: str | None, subject: str = "", *, known: bool = False) -> float:
        """Return the seconds until this subject may try again from there, 0 if it may now.

        A `known` subject is not held back by the failures of others.
        """
        place = network(address)
        own = self._subjects.retry_after(f"{place} {subject}")
        return own if known else max(own, self._addresses.retry_after(place))

    def retry_after_address(self, address: str | None) -> float:
        """Return the seconds until unknown subjects may try again from this address, 0 if they may now."""
        return self._addresses.retry_after(network(address))

    def record_failure(self, address: str | None, subject: str = "") -> None:
        """Count one failed authentication."""
        place = network(address)
        self._subjects.record_failure(f"{place} {subject}")
        self._addresses.record_failure(place)
