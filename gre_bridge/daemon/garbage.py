"""Full garbage collections that do not stop a process with many objects.

A full collection of Python examines every object that can be part of a cycle, while nothing else runs: with 5,000 sockets that
takes three quarters of a second. Nearly all of these objects live for long, and are freed without the collector when their socket
closes. So what has survived one full collection is left out of the next ones. Cycles that arise among such objects wait until
everything is examined again, once in THAW_EVERY.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

THAW_EVERY = 3600.0
"""Seconds."""


class LongLived:
    """Leaves out of full collections what has survived one. Belongs into `gc.callbacks`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thawed_at = clock()

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """See `gc.callbacks`."""
        if phase != "stop" or info["generation"] != 2:
            return
        now = self._clock()
        if now - self._thawed_at < THAW_EVERY:
            gc.freeze()
        else:
            self._thawed_at = now
            gc.unfreeze()
