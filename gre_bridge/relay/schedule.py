"""The time of a dispatcher's next claim: at once after a wake-up, at a known time, or after the poll interval."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

LOCKED_PAUSE = 0.02
"""Seconds to wait when all due lanes were locked by others; doubles with each claim that finds them locked."""


class ClaimSchedule:
    """The time of the next claim. The sender and the settler change it when they make work or room."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is in seconds."""
        self._clock = clock
        self._wakeup = asyncio.Event()
        self._at_once = True
        self._due_at: float | None = None
        self._full = False
        self._paused_until = 0.0
        self._locked = 0
        """Claims in a row that found all due lanes locked."""

    @property
    def pause(self) -> float:
        """Seconds for which no claim may be made, after one that failed."""
        return max(0.0, self._paused_until - self._clock())

    def notify(self) -> None:
        """There may be work: claim as soon as possible."""
        self._wakeup.set()

    def notify_room(self) -> None:
        """Lanes were sent or settled: claim, if `wait_for_room` was called since the last claim."""
        if self._full:
            self._full = False
            self._wakeup.set()

    def wait_for_room(self) -> None:
        """Claim nothing until `notify_room`."""
        self._full = True
        self._due_at = None

    def claim_in(self, seconds: float | None) -> None:
        """Claim after so many seconds at the latest; None: with the next poll. 0: at once, without waiting."""
        self._locked = 0
        self._at_once = seconds == 0
        self._due_at = None if seconds is None else self._clock() + seconds

    def claim_after_lock(self, longest: float) -> None:
        """Claim soon, since all due lanes were locked: after a pause that grows up to `longest` (seconds)."""
        locked = self._locked
        self.claim_in(min(LOCKED_PAUSE * 2.0**locked, longest))
        self._locked = min(locked + 1, 7)

    def pause_for(self, seconds: float) -> None:
        """Make no claim for so many seconds."""
        self._paused_until = self._clock() + seconds
        self.claim_in(seconds)

    def retry_now(self) -> None:
        """The database recovered: cancel the current pause."""
        if self.pause:
            self._paused_until = 0.0
            self.notify()

    async def wait(self, poll_interval: float) -> None:
        """Wait for a wake-up, the next due time or the end of `poll_interval` (seconds)."""
        if self._at_once:
            self._at_once = False
            self._wakeup.clear()
            await asyncio.sleep(0)
            return
        due = math.inf if self._due_at is None else max(0.0, self._due_at - self._clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(poll_interval, due)):
                await self._wakeup.wait()
            self._wakeup.clear()
