"""The data of Pusher's events, for docs/asyncapi.json. As in `responses`, nothing is built or checked with these models.

`PUSHER_EVENTS` has them by the event's name. `gre_bridge.relay.routing.pusher` builds the events.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from gre_bridge.api.schemas.colleagues import Note
from gre_bridge.api.schemas.fields import Described, absent
from gre_bridge.api.schemas.responses import Session


class EventFile(Described):
    """A file of a message: neither its name nor its address, since a channel may be public."""

    id: UUID
    kind: Literal["image", "file"]


class _MessageEvent(Described):
    id: UUID
    message: str
    sender: Literal["player", "staff", "system"]
    sender_name: str | None
    player_id: int
    timestamp: datetime
    status: Literal["sent"]
    session_id: UUID
    seq: int = Field(ge=1)
    auto: Literal[True] = absent(description="Present if the server wrote the message by itself.")
    attachments: list[EventFile] = absent(description="Its files; absent without any.")
    late: Literal[True] = absent(description="Present if the event is older than 30 seconds.")
    replayed: Literal[True] = absent(description="Present if an operator sent the event again.")
    truncated: Literal[True] = absent(
        description="Present if the text was cut to fit: read the message by its `id`."
    )


class PlayerMessage(_MessageEvent):
    """A player's message."""


class StaffMessage(_MessageEvent):
    """A message of staff or of the system."""


class SessionState(Described):
    """A session was opened, assigned, released, closed or reopened; `last_message` may be cut to fit."""

    session: Session


class ReadUpTo(Described):
    """One side has read the other's messages up to a seq."""

    session_id: UUID
    by: Literal["player", "staff"]
    up_to_seq: int = Field(ge=0)
    timestamp: datetime | None


class Transferred(Described):
    """A session went from one staff member to another; for staff only."""

    session_id: UUID
    former: str = Field(alias="from")
    to: str
    by: str | None = Field(description="Who did it; null for a back end or the server.")


class NewNote(Described):
    """A new private note; for staff only."""

    note: Note
    truncated: Literal[True] = absent(description="Present if the text was cut to fit.")


PUSHER_EVENTS: dict[str, type[Described]] = {
    "new-player-message": PlayerMessage,
    "new-staff-message": StaffMessage,
    "session-updated": SessionState,
    "messages-read": ReadUpTo,
    "session-transferred": Transferred,
    "session-note": NewNote,
}
