"""Who asked too often with what is no valid token: a budget of failures for each address.

It counts and says how long to wait; it must not know tokens, nor keep more than a bounded memory.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

MINUTE = 60.0
ADDRESSES = 20_000
"""Addresses remembered; beyond that, those that failed longest ago are forgotten."""


class Guard:
    """`per_minute` failures at once, and then one each time that 1/`per_minute` of a minute has passed."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._cost = MINUTE / per_minute
        self._clock = clock
        self._paid: dict[str, float] = {}
        """Until when an address's failures are paid for; in the order of their last failure."""

    def wait(self, address: str | None) -> float:
        """Seconds until this address may try again; 0 now."""
        paid = self._paid.get(_network(address))
        # (Less than a microsecond is what adding up fractions leaves.)
        over = 0.0 if paid is None else paid + self._cost - self._clock() - MINUTE
        return over if over > 1e-6 else 0.0

    def failed(self, address: str | None) -> None:
        """Count one failed authentication."""
        network, now = _network(address), self._clock()
        # (No more than a whole budget is owed, however many were under way before the first one failed.)
        self._paid[network] = min(max(self._paid.pop(network, now), now) + self._cost, now + MINUTE)
        while self._paid:
            oldest = next(iter(self._paid))
            if len(self._paid) <= ADDRESSES and self._paid[oldest] > now:
                break
            del self._paid[oldest]


def _network(address: str | None) -> str:
    """What one visitor is taken for: an IPv4 address, or the /64 that an IPv6 host has to itself."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found)
