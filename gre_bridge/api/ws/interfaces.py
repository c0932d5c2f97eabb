"""The collaborators of the hub, as the hub sees them: subscribers and what they read, other connections, and Realtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntFlag
from typing import Protocol

from gre_bridge.db.answers import HubChanges, Message, Note
from gre_bridge.db.callers import Identity
from gre_bridge.db.types import Json
from gre_bridge.polling import Wakeups


class SessionChange(IntFlag):
    """Changes of a session other than its messages."""

    OPENED = 1
    """The session is new to the subscriber; sent before its messages."""
    UPDATED = 2
    READ_BY_STAFF = 4
    READ_BY_PLAYER = 8
    NOTED = 16
    """There is a new note of staff; only staff are told."""


NO_CHANGE = SessionChange(0)
READ_BY = {"staff": SessionChange.READ_BY_STAFF, "player": SessionChange.READ_BY_PLAYER}
"""The change that a read mark of this side is."""


class Subscriber(Protocol):
    """One authenticated connection. No method may block or raise."""

    identity: Identity

    @property
    def busy(self) -> bool:
        """True if the connection receives frames and many of them are queued."""

    def send_message(self, message: Message, text: str) -> None:
        """Send a chat message (M); `text` is its frame."""

    def send_change(self, session_id: str, seq: int, change: SessionChange, text: str) -> None:
        """Send the frame of a change; messages of the session were sent up to `seq`."""

    def send_note(self, seq: int, note: Note, text: str) -> None:
        """Send the frame of a note, to staff only; messages of its session were sent up to `seq`."""

    def send_attachment(self, session_id: str, attachment_id: str, text: str) -> None:
        """Send the frame of a file that has changed; the message that has it was sent before."""

    def send_staff_status(self, staff_id: str, text: str) -> None:
        """Send the frame of a staff member's presence."""

    def send_hint(self, text: str) -> None:
        """Send a frame that may be lost."""

    def drop_positions(self, sent: Mapping[str, int], *, settled_at: float) -> None:
        """Drop positions that the hub has passed: the seqs `sent` per session; of other sessions, those before `settled_at`."""

    def close(self, code: int, reason: str, error: str) -> None:
        """Close the connection with this close code, after an error frame."""


class MessageSource(Protocol):
    """Reads what a connection was not sent."""

    async def missed(
        self, positions: Mapping[str, tuple[int, int | None]], player_id: int | None
    ) -> HubChanges:
        """Read what is newer than these seqs and notes, in the shape of `gre_hub_changes_v1`. Raises BridgeError."""


class ExternalConnections(Protocol):
    """Connections outside this process through which people receive messages (Pusher)."""

    def identities(self) -> Iterable[Identity]:
        """List the people who may be connected there."""

    def disconnect(self, identity: Identity) -> None:
        """End this person's connections there as soon as possible."""


class Realtime(Wakeups, Protocol):
    """The subscription to Realtime."""

    async def broadcast(self, event: str, payload: Json) -> None:
        """Send an event to the other instances. It may be lost."""
