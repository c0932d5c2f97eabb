"""What a process tells the one that started it: ready, alive, stopping, and what a person must change.

A process of its own tells systemd (`Notifier`); one under the supervisor writes lines of JSON to a pipe. Both have
the same methods.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Protocol

REPORT_INTERVAL = 1.0
"""Seconds between two reports of a process to the supervisor."""


class Reports(Protocol):
    """Where a process reports to. Nothing here blocks or raises."""

    def ready(self, status: str = "") -> None:
        """The start is over."""

    def stopping(self, status: str = "") -> None:
        """The stop has begun."""

    def status(self, status: str) -> None:
        """One line for an operator."""

    async def feed_watchdog(self, stuck: Callable[[], str]) -> None:
        """Say until cancelled that the process is alive, for as long as `stuck` returns no reason not to."""


class PipeReports:
    """Reports to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is the pipe's end to write to."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def ready(self, status: str = "") -> None:
        """See Reports."""
        self._tell(ready=True, status=status)

    def stopping(self, status: str = "") -> None:
        """See Reports."""
        self._tell(status=status)

    def status(self, status: str) -> None:
        """See Reports."""
        self._tell(status=status)

    def failed(self, error: str) -> None:
        """Say what a person must change; the process then ends."""
        self._tell(error=error)

    async def feed_watchdog(self, stuck: Callable[[], str]) -> None:
        """See Reports; the supervisor ends a process that is stuck, or that says nothing."""
        while True:
            self._tell(stalled=stuck())
            await asyncio.sleep(REPORT_INTERVAL)

    def _tell(self, **report: object) -> None:
        try:
            os.write(self._descriptor, json.dumps(report).encode() + b"\n")
        except BlockingIOError:
            return  # the supervisor is stopped, or very busy
        except OSError:
            os._exit(1)  # the supervisor is gone: a process without one must not stay (see supervisor.py)
