"""Limits of work per step: token buckets, turns of the event loop, pauses for slow readers, sizes of reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

YIELD_AFTER = 0.01
"""Seconds of work after which other tasks run."""
PAUSE_AFTER = 64 * 1024
"""Bytes sent after which slow readers may catch up."""
MAX_PAUSE, MAX_TOTAL_PAUSE = 0.1, 0.5
"""Seconds that one read waits for slow readers: at once, and in all."""
PERSON_PER_SECOND, PERSON_BURST = 40.0, 200.0
MAX_PERSONS = 20_000
"""People whose budgets are remembered, the latest."""


class Reader(Protocol):
    """A receiver of frames."""

    @property
    def busy(self) -> bool:
        """True if many frames are queued for it."""


class Pacer:
    """Interrupts one read's fan-out, so that other tasks run and readers catch up."""

    def __init__(self) -> None:
        """Measure from now on."""
        self._started = time.monotonic()
        self._bytes = 0
        self._pause_left = MAX_TOTAL_PAUSE

    async def after(self, size: int, readers: Callable[[], Iterable[Reader]]) -> None:
        """Call after `size` bytes were sent to `readers`: yields or pauses when it is time."""
        self._bytes += size
        if self._bytes >= PAUSE_AFTER:
            self._bytes = 0
            await self._pause(readers)
        elif time.monotonic() - self._started > YIELD_AFTER:
            await asyncio.sleep(0)
        else:
            return
        self._started = time.monotonic()

    async def _pause(self, readers: Callable[[], Iterable[Reader]]) -> None:
        started = time.monotonic()
        await asyncio.sleep(0)
        until = started + min(MAX_PAUSE, self._pause_left)
        while time.monotonic() < until and any(reader.busy for reader in readers()):  # noqa: ASYNC110 - of many
            await asyncio.sleep(0.002)
        self._pause_left -= time.monotonic() - started


class TokenBucket:
    """`burst` tokens at once, refilled at `rate` tokens a second. Times are seconds of one clock."""

    __slots__ = ("_filled_at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Start full."""
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self._filled_at = now

    def take(self, now: float) -> bool:
        """Take one token; return False if there is none."""
        self._refill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def overdraw(self, now: float) -> None:
        """Take one token even if there is none; `tokens` becomes negative then."""
        self._refill(now)
        self.tokens -= 1

    def wait(self, tokens: float = 1.0) -> float:
        """Return the seconds until there are so many tokens, rounded up a little; 0 if there are."""
        return 0.0 if self.tokens >= tokens else round((tokens - self.tokens) / self.rate + 0.05, 2)

    def _refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now


class PersonBudgets:
    """Frames that each person may send, over all of its connections."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._buckets: dict[Hashable, TokenBucket] = {}

    def spend(self, person: Hashable) -> float:
        """Count one frame; return the seconds to wait if it exceeds the budget, else 0."""
        now = self._clock()
        bucket = self._buckets.pop(person, None) or TokenBucket(PERSON_PER_SECOND, PERSON_BURST, now)
        self._buckets[person] = bucket
        if len(self._buckets) > MAX_PERSONS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if bucket.take(now) else bucket.wait()


@dataclass(slots=True)
class ReadSize:
    """The size of one read: halved when it fails, for whatever reason, and doubled again on success."""

    sessions: int = 500
    messages: int = 200
    size: int = 1_000_000
    """Bytes."""
    _shift: int = 0
    _full: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the full size."""
        self._full = (self.sessions, self.messages, self.size)

    def halve(self) -> None:
        """Read less next time."""
        self._resize(min(self._shift + 1, 20))

    def grow(self) -> None:
        """Read twice as much next time, up to the full size."""
        if self._shift:
            self._resize(self._shift - 1)

    def _resize(self, shift: int) -> None:
        self._shift = shift
        self.sessions, self.messages, self.size = (max(1, full >> shift) for full in self._full)
