"""Full garbage collections that do not stop a process with many objects.

A full collection of Python examines every object that can be part of a cycle, while nothing else runs: with 5,000 sockets that
takes three quarters of a second. Nearly all of these objects live for long. So what has survived a full collection that took long
and found hardly anything is left out of the next ones. What becomes garbage among it waits until everything is examined again: when
about as much has been left out since as was examined the last time, and at least once in THAW_EVERY. So what waits has a bound,
however many connections come and go.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

LONG = 0.1
"""Seconds of a full collection above which its survivors may be left out."""
MUCH = 10_000
"""Objects found for each second of a collection, above which they may not: connections come and go, and leave garbage."""
THAW_EVERY = 3600.0
"""Seconds."""


class LongLived:
    """Leaves out of full collections what lives for long. Belongs into `gc.callbacks`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._complete_at = clock()
        self._complete = 0.0
        """Seconds that the last collection took that left out nothing of ours."""
        self._left_out = 0.0
        """Seconds that the collections since took whose survivors are left out, too."""
        self._frozen = False
        """True while survivors are left out."""

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """See `gc.callbacks`."""
        if info["generation"] != 2:
            return
        now = self._clock()
        if phase == "start":
            self._began = now
            return
        took = now - self._began
        if not self._frozen:
            self._complete, self._complete_at, self._left_out = took, now, 0.0
        elif self._left_out > self._complete or now - self._complete_at >= THAW_EVERY:
            self._frozen = False
            gc.unfreeze()
            return
        # (The number of objects that are left out would tell more, but to count them takes nearly as long as to examine them.)
        if took >= LONG and info["collected"] <= MUCH * took:
            self._left_out += took if self._frozen else 0.0
            self._frozen = True
            gc.freeze()
