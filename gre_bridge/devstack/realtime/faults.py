"""Faults of the embedded Realtime, set through /__stack/faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gre_bridge.devstack.realtime.socket import Channel, Socket


@dataclass
class RealtimeFaults:
    """Faults in force. Probabilities are 0 to 1; `system_delay` is in seconds from join to "Subscribed"."""

    refuse: bool = False
    accept_then_close: bool = False
    mute: bool = False
    deaf: bool = False
    ignore_joins: bool = False
    system_delay: float | None = None
    drop_changes: float = 0.0
    drop_broadcasts: float = 0.0
    max_events_per_second: float | None = None
    """Replaces the tenant's limit."""

    def __post_init__(self) -> None:
        # Not a field: only the fields can be set and read through /__stack/faults.
        self.sockets: set[Socket] = set()

    def close_all(self, code: int) -> None:
        """Close every socket with this code; 1006 drops the connection without a close frame."""
        for socket in list(self.sockets):
            socket.close(code)

    def phx_close_all(self) -> None:
        """Close every channel; the sockets stay open."""
        for channel in self._channels():
            channel.close()

    def system_error_all(self, message: str) -> None:
        """Send every channel a `system` message of status error; it stays joined."""
        for channel in self._channels():
            channel.system("error", message, "system")

    def _channels(self) -> list[Channel]:
        return [channel for socket in self.sockets for channel in socket.channels.values()]
