"""The messages and notes of a connection's own client: it gets them as answers, so the hub's copies are dropped."""

from __future__ import annotations

from typing import Any

from gre_bridge.db.answers import Message, Note

MAX_REMEMBERED = 500
"""Entries of a table of `remember`: the oldest one goes."""


class OwnItems:
    """What the client has sent itself. A copy can come before the answer or after it."""

    def __init__(self) -> None:
        """Nothing is being stored."""
        self.sending: str | None = None
        """The id of the message that is being stored."""
        self.received: Message | None = None
        """That message, if the hub has sent it before the acknowledgement."""
        self.adding: str | None = None
        """The id of the note that is being stored."""
        self.added: Note | None = None
        """That note, if the hub has sent it before the answer."""
        self._expected: dict[str, None] = {}

    def expect(self, own_id: str) -> None:
        """Drop the hub's copy of a message or note whose answer was sent."""
        remember(self._expected, own_id, None)

    def drops_message(self, message: Message) -> bool:
        """Return true for a copy that was expected, once."""
        return self._drops(message["id"])

    def drops_note(self, note: Note) -> bool:
        """Return true for a copy that was expected, once, and for the note that is being stored."""
        if note["id"] == self.adding:
            self.added = note
            return True
        return self._drops(note["id"])

    def _drops(self, own_id: str) -> bool:
        if own_id not in self._expected:
            return False
        del self._expected[own_id]
        return True


def remember(table: dict[str, Any], key: str, value: object) -> None:
    """Set an entry and make it the latest one; drop the oldest of more than MAX_REMEMBERED."""
    table.pop(key, None)
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]
