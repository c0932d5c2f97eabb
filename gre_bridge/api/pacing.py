"""How much the hub does in one step: turns of the loop between messages, short waits for readers, sizes of reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

STEP = 0.01
"""Seconds after which others have a turn of the loop."""
CHUNK = 64 * 1024
"""Bytes told after which readers may catch up."""
PERSON_PER_SECOND, PERSON_BURST = 40.0, 200.0
PEOPLE = 20_000
"""People whose budgets are remembered, the latest."""
PATIENCE = 0.1
PATIENCE_IN_ALL = 0.5
"""Seconds that one read waits for its readers: at once, and in all."""


class Reader(Protocol):
    """Somebody who is told."""

    @property
    def busy(self) -> bool:
        """Whether much waits for it."""


class Turns:
    """The turns that one read gives to others."""

    def __init__(self) -> None:
        """Begin now."""
        self._began = time.monotonic()
        self._bytes = 0
        self._patience = PATIENCE_IN_ALL

    async def take(self, size: int, readers: Callable[[], Iterable[Reader]]) -> None:
        """Give a turn when it is time; after much was told, wait shortly for readers who keep up so far."""
        self._bytes += size
        if self._bytes >= CHUNK:
            self._bytes = 0
            await self._wait(readers)
        elif time.monotonic() - self._began > STEP:
            await asyncio.sleep(0)
        else:
            return
        self._began = time.monotonic()

    async def _wait(self, readers: Callable[[], Iterable[Reader]]) -> None:
        began = time.monotonic()
        await asyncio.sleep(0)
        until = began + min(PATIENCE, self._patience)
        while time.monotonic() < until and any(reader.busy for reader in readers()):  # noqa: ASYNC110 - of many
            await asyncio.sleep(0.002)
        self._patience -= time.monotonic() - began


@dataclass(slots=True)
class Bucket:
    """Tokens that fill up again."""

    rate: float
    burst: float
    tokens: float = 0.0
    filled: float = 0.0

    def take(self, now: float) -> bool:
        """Take one token if there is one, and say whether; `now` in seconds."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class PersonBudgets:
    """How many frames each person may have carried out, over all of its sockets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._buckets: dict[Hashable, Bucket] = {}

    def spend(self, person: Hashable) -> float:
        """Spend one; the seconds to wait when there is none, else 0."""
        now = self._clock()
        bucket = self._buckets.pop(person, None) or Bucket(PERSON_PER_SECOND, PERSON_BURST, PERSON_BURST, now)
        self._buckets[person] = bucket
        if len(self._buckets) > PEOPLE:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if bucket.take(now) else round((1 - bucket.tokens) / bucket.rate + 0.05, 2)


@dataclass(slots=True)
class ReadSize:
    """What one read may bring: halved when it fails, whatever the reason, and grown again."""

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
        """Ask for less."""
        self._resize(min(self._shift + 1, 20))

    def grow(self) -> None:
        """Ask for more again."""
        if self._shift:
            self._resize(self._shift - 1)

    def _resize(self, shift: int) -> None:
        self._shift = shift
        self.sessions, self.messages, self.size = (max(1, full >> shift) for full in self._full)
