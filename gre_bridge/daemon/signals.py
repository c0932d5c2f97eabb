"""Termination signals from the first moment of a command on.

The kernel drops a signal to process 1 that has no handler, and imports take most of a second: so the handlers are
installed before them. It must import nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

TERMINATED = 143
"""Exit status of a command that SIGTERM ended: 128 + 15, as a shell says it."""
_FIRST_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def handle_from_the_start(*, daemon: bool) -> None:
    """End the process on SIGTERM; a `daemon` also on SIGINT and SIGHUP, and with status 0: nothing is in flight yet."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0 if daemon else TERMINATED)

    for number in _FIRST_SIGNALS if daemon else (signal.SIGTERM,):
        if not is_ignored(number):
            signal.signal(number, end)


def is_ignored(number: signal.Signals) -> bool:
    """Whether whoever started this process wants it to ignore the signal, as nohup does with SIGHUP."""
    return signal.getsignal(number) is signal.SIG_IGN


def open_standard_streams() -> None:
    """Point the standard streams that are closed to /dev/null: the next file or socket would take their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
