"""What systemd is told: that the daemon is ready, stops, and still turns (sd_notify's protocol).

One datagram to the socket that NOTIFY_SOCKET names; without one every call does nothing. It must not fail or
block the daemon: a lost datagram is lost, and only the watchdog's absence has a consequence.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping


class Notifier:
    """The way to the service manager. `watchdog` is its limit in seconds, None when it sets none."""

    def __init__(self, *, address: str | None, watchdog: float | None = None) -> None:
        """`address`: a socket's path, or its abstract name with @ in front, as NOTIFY_SOCKET has it."""
        # A name in the abstract namespace begins with a null byte (sd_notify(3)).
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self.watchdog = watchdog if address else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """As systemd set it up for this process (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        limit = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(
            address=environment.get("NOTIFY_SOCKET"),
            watchdog=int(limit) / 1e6 if mine and limit.isdigit() and int(limit) else None,
        )

    def ready(self, status: str = "") -> None:
        """The start is over."""
        self._tell("READY=1", status)

    def stopping(self, status: str = "") -> None:
        """The stop has begun."""
        self._tell("STOPPING=1", status)

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._tell("", status)

    def alive(self) -> None:
        """Feed the watchdog once."""
        self._tell("WATCHDOG=1")

    async def feed_watchdog(self, stuck: Callable[[], str]) -> None:
        """Feed the watchdog until cancelled, for as long as `stuck` returns no reason not to.

        Returns at once where nobody watches.
        """
        if self.watchdog is None:
            return
        told = ""
        while True:
            reason = stuck()
            if not reason:
                self.alive()
            if reason != told:
                told = reason
                self.status(reason or "running")
            # Half the limit is what sd_watchdog_enabled(3) advises; a third forgives one lost datagram.
            await asyncio.sleep(self.watchdog / 3)

    def _tell(self, what: str, status: str = "") -> None:
        lines = [what, f"STATUS={' '.join(status.split())}" if status else ""]
        if self._address is None or not any(lines):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(filter(None, lines)).encode(), self._address)
