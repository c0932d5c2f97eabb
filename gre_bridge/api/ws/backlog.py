"""What a connection has not been sent: positions in sessions, and the latest frames of other subjects."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from gre_bridge.api.ws.interfaces import NO_CHANGE, SessionChange
from gre_bridge.api.ws.transport import ClientTransport


@dataclass(slots=True)
class Behind:
    """A session of which not everything was sent."""

    seq: int
    """Sent up to this message."""
    replay: int = 0
    """Messages up to this one are from before the client connected."""
    last: int = 0
    """The newest message that the hub sent meanwhile."""
    changes: SessionChange = NO_CHANGE
    note: int | None = None
    """`n` of the note up to which notes were sent, if there are later ones."""
    held: bool = False
    """Nothing is sent until the client's own message, which comes next, is acknowledged."""


class LatestFrames:
    """Frames that wait, of each subject the latest; those of different subjects can be sent in any order."""

    def __init__(self, most: int) -> None:
        """Keep `most` frames."""
        self._most = most
        self._frames: dict[str, tuple[str, str | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._frames)

    def __contains__(self, subject: str) -> bool:
        return subject in self._frames

    def put(self, subject: str, text: str, session_id: str | None = None) -> bool:
        """Keep a frame in place of an earlier one of its subject; return False if there are too many.

        With a session it waits until that session's messages were sent.
        """
        if len(self._frames) >= self._most and subject not in self._frames:
            return False
        self._frames[subject] = text, session_id
        return True

    def sendable(self, behind: Container[str]) -> bool:
        """Return True if a frame waits for no session that is `behind`."""
        return any(session_id not in behind for _, session_id in self._frames.values())

    def send(self, transport: ClientTransport, behind: Container[str] = ()) -> None:
        """Send as many as the client takes, without those of sessions that are `behind`."""
        for subject, (text, session_id) in list(self._frames.items()):
            if transport.busy:
                return
            if session_id not in behind:
                del self._frames[subject]
                transport.put(text)
