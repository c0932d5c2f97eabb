"""Full garbage collections that do not stop a process with many objects.

A full collection of Python examines every object that can be part of a cycle, while nothing else runs: with 5,000 sockets that
takes three quarters of a second. Nearly all of these objects live for long. So what has survived a full collection that took long
and found hardly anything is left out of the next ones. What becomes garbage among it waits until everything is examined again: when
much has been left out since the last time, and at least once in THAW_EVERY.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

LONG = 0.1
"""Seconds of a full collection above which its survivors may be left out."""
MUCH = 20_000
"""Objects found for each second of a collection, above which they may not: connections come and go, and leave garbage."""
THAW_EVERY = 3600.0
"""Seconds."""
MOST = 3.0
"""Seconds that collections took whose survivors are left out. Above that everything is examined again."""


class LongLived:
    """Leaves out of full collections what lives for long. Belongs into `gc.callbacks`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._thawed_at = clock()
        self._thawed = False
        """True if the next full collection examines everything."""
        self._left_out = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """See `gc.callbacks`."""
        if info["generation"] != 2:
            return
        now = self._clock()
        if phase == "start":
            self._began = now
            return
        took = now - self._began
        # (The number of objects that are left out would tell more, but to count them takes nearly as long as to examine them.)
        if took >= LONG and info["collected"] <= MUCH * took:
            gc.freeze()
            self._left_out += took
        if self._thawed:
            self._thawed = False
        elif self._left_out > MOST or now - self._thawed_at >= THAW_EVERY:
            self._thawed, self._thawed_at, self._left_out = True, now, 0.0
            gc.unfreeze()
