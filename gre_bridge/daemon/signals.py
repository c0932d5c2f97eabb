"""Handlers for termination signals, installed before other modules are imported.

The kernel drops a signal to process 1 without a handler, and imports take most of a second. This module imports only
the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

TERMINATED = 143
"""Exit status of a command that SIGTERM ended: 128 + 15, as in a shell."""
_FIRST_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def handle_from_the_start(*, daemon: bool) -> None:
    """Exit on SIGTERM; a `daemon` also on SIGINT and SIGHUP, with status 0 since it has no work in flight yet."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0 if daemon else TERMINATED)

    for number in _FIRST_SIGNALS if daemon else (signal.SIGTERM,):
        if not is_ignored(number):
            signal.signal(number, end)


def is_ignored(number: signal.Signals) -> bool:
    """Return True if the parent made this process ignore the signal, as nohup does with SIGHUP."""
    return signal.getsignal(number) is signal.SIG_IGN


def open_standard_streams() -> None:
    """Open closed standard streams on /dev/null: the next file or socket would get their descriptor."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
