"""Notifies systemd that the daemon is ready, alive or stopping (the protocol of sd_notify(3)).

Each notification is one datagram to the socket in NOTIFY_SOCKET; without that variable every call does nothing.
Notifications neither block nor raise; a lost datagram matters only to the watchdog.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Protocol


class StallCheck(Protocol):
    """Knows whether the loops of this process make progress."""

    def stalled(self) -> str:
        """Return the name of a stalled loop, or an empty string."""


class Notifier:
    """The connection to the service manager. `watchdog` is its time limit in seconds, or None."""

    def __init__(self, *, address: str | None, watchdog: float | None = None) -> None:
        """`address` is a path or an abstract name that starts with @, as in NOTIFY_SOCKET."""
        # An abstract name starts with a null byte (sd_notify(3)).
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self.watchdog = watchdog if address else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, as systemd sets them for this process."""
        limit = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(
            address=environment.get("NOTIFY_SOCKET"),
            watchdog=int(limit) / 1e6 if mine and limit.isdigit() and int(limit) else None,
        )

    def ready(self, status: str = "") -> None:
        """Report that the start is complete."""
        self._send("READY=1", status)

    def stopping(self, status: str = "") -> None:
        """Report that the stop has begun."""
        self._send("STOPPING=1", status)

    def status(self, status: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("", status)

    def alive(self) -> None:
        """Reset the watchdog's timer."""
        self._send("WATCHDOG=1")

    async def report_alive(self, health: StallCheck) -> None:
        """Reset the watchdog's timer until cancelled, while `health` reports no stalled loop.

        Returns at once without a watchdog.
        """
        if self.watchdog is None:
            return
        reported = ""
        while True:
            reason = health.stalled()
            if not reason:
                self.alive()
            if reason != reported:
                reported = reason
                self.status(reason or "running")
            # sd_watchdog_enabled(3) advises half the limit; with a third, one datagram may be lost.
            await asyncio.sleep(self.watchdog / 3)

    def _send(self, message: str, status: str = "") -> None:
        lines = [message, f"STATUS={' '.join(status.split())}" if status else ""]
        if self._address is None or not any(lines):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(filter(None, lines)).encode(), self._address)
