"""Reports of a process to its parent: ready, alive, stopping, or a configuration error.

A process that runs alone notifies systemd (`Notifier`); a child of the supervisor writes lines of JSON to a pipe. Both
have the same methods.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Protocol

from gre_bridge.systemd import StallCheck

REPORT_INTERVAL = 1.0
"""Seconds between two reports of a process to the supervisor."""


class Reports(Protocol):
    """Receives the reports of a process. No method blocks or raises."""

    def ready(self, status: str = "") -> None:
        """Report that the start is complete."""

    def stopping(self, status: str = "") -> None:
        """Report that the stop has begun."""

    def status(self, status: str) -> None:
        """Set the line that operators see."""

    async def report_alive(self, health: StallCheck) -> None:
        """Report until cancelled that the process is alive, and the stalled loop that `health` finds."""


class PipeReports:
    """Reports to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is the write end of the pipe."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def ready(self, status: str = "") -> None:
        """See Reports."""
        self._write(ready=True, status=status)

    def stopping(self, status: str = "") -> None:
        """See Reports."""
        self._write(status=status)

    def status(self, status: str) -> None:
        """See Reports."""
        self._write(status=status)

    def failed(self, error: str) -> None:
        """Report a configuration error, with which the process ends."""
        self._write(error=error)

    def alive(self, stalled: str = "") -> None:
        """Report that the event loop runs, and the name of a stalled loop."""
        self._write(stalled=stalled)

    async def report_alive(self, health: StallCheck) -> None:
        """See Reports. The supervisor kills a process that is stalled or silent."""
        while True:
            self.alive(health.stalled())
            await asyncio.sleep(REPORT_INTERVAL)

    def _write(self, **report: object) -> None:
        try:
            os.write(self._descriptor, json.dumps(report).encode() + b"\n")
        except BlockingIOError:
            return  # the supervisor is stopped or busy
        except OSError:
            os._exit(1)  # the supervisor has ended: its children must not outlive it (see supervisor.py)
