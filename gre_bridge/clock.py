"""The clock for deadlines that another machine keeps, too: a lease, a pause that a service asked for."""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def shared_clock() -> float:
    """Seconds on a clock that goes on while this machine sleeps or its VM is paused.

    `time.monotonic` stands still then: a lease that ran out in the database would seem to hold here. Where there is no
    such clock (it is Linux's), it is `time.monotonic`.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
