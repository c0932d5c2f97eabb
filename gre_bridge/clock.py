"""The clock for deadlines that another machine keeps as well: leases, pauses that a service requested."""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def shared_clock() -> float:
    """Return seconds of a clock that advances while this machine sleeps or its VM is paused.

    `time.monotonic` stops meanwhile, so a lease that expired in the database would seem valid here. It is used where
    CLOCK_BOOTTIME (Linux) is missing.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
