"""The frames that the server sends on `/ws`, for docs/asyncapi.json. As in `responses`, nothing is built or checked with these models.

Each class is the body of one type: `SERVER_FRAMES` has them by the frame's `type`. The client's frames are in `api.ws.frames`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from gre_bridge.api.schemas.codes import AnyCode
from gre_bridge.api.schemas.colleagues import Note
from gre_bridge.api.schemas.fields import Described, absent
from gre_bridge.api.schemas.files import Attachment
from gre_bridge.api.schemas.responses import Message, Session
from gre_bridge.api.schemas.story import SessionEvent

Side = Literal["player", "staff"]


class Body(Described):
    """The fields of a frame besides its type."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Authenticated(Body):
    """The token is accepted; what was missed and what is new follows."""

    success: Literal[True]
    role: Literal["player", "staff", "admin"]
    player_id: int = absent(description="Of a player.")
    staff_id: str = absent(description="Of staff and admins.")
    expires_at: datetime | None = Field(
        description="When the token has to be renewed; null for a socket of the service key."
    )
    sessions: list[Session] = Field(
        description="Those of `since`, the open ones, and those with missed messages; `last_message` is cut to 200 characters."
        " Empty after a renewal."
    )
    staff_online: int = Field(ge=0, description="The number of staff who are online.")


class MessageAck(Body):
    """The socket's own message is stored."""

    client_id: str | None
    id: UUID
    session_id: UUID
    seq: int = Field(ge=1)
    timestamp: datetime = Field(description="The message's `created_at`.")
    duplicate: bool = Field(description="True if a message with this id was stored already.")
    attachments: list[Attachment] = absent(description="Its files as they are now; absent without any.")


class ChatMessage(Body):
    """A message."""

    message: Message
    replay: bool = Field(description="True for a message that was missed: an answer to `since`.")


class AttachmentUpdated(Body):
    """A file of a message has changed."""

    session_id: UUID
    attachment: Attachment


class TypingChanged(Body):
    """Somebody types, or has stopped; expires after 6 seconds."""

    session_id: UUID
    player_id: int
    by: Side
    typing: bool
    staff_id: str = absent(description="Who of the staff; for staff only.")
    purpose: Literal["note"] = absent(alias="for", description="A private note is typed; for staff only.")


class SessionNote(Body):
    """A new private note, or the answer to `add_note`; for staff only."""

    note: Note
    client_id: str = absent(description="Of the `add_note` that this answers.")


class SessionRated(Body):
    """The answer to `rate_session`."""

    session: Session
    client_id: str = absent()


class Viewer(Body):
    """A staff member who looks at a session."""

    staff_id: str
    display_name: str | None
    typing: bool


class SessionViewers(Body):
    """Everybody who looks at a session now; for staff only."""

    session_id: UUID
    viewers: list[Viewer]


class MessagesRead(Body):
    """One side has read the other's messages up to a seq."""

    session_id: UUID
    by: Side
    up_to_seq: int = Field(ge=0)
    timestamp: datetime | None


class SessionChangedBy(Body):
    """Something happened to a session: an event of its story; for staff only."""

    session_id: UUID
    event: SessionEvent


class SessionUpdated(Body):
    """A session is new to this socket, or has changed."""

    session: Session


class StaffStatus(Body):
    """The presence of a staff member."""

    staff_id: str
    display_name: str | None
    status: Literal["online", "away", "offline"]


class FrameRefused(Body):
    """A frame was not processed, or the connection is about to be closed."""

    code: AnyCode = Field(
        description="For programs. A trigger of the project's own may refuse with another one."
    )
    error: str = Field(description="One line to read.")
    client_id: str = absent(description="Of the frame that was refused.")
    retry_after: float = absent(description="Seconds.")
    details: dict[str, Any] = absent(description="For programs; present with some codes only.")


class Pong(Body):
    """The answer to `ping`."""


SERVER_FRAMES: dict[str, type[Body]] = {
    "authenticated": Authenticated,
    "message_ack": MessageAck,
    "chat_message": ChatMessage,
    "attachment_updated": AttachmentUpdated,
    "typing": TypingChanged,
    "session_note": SessionNote,
    "session_rated": SessionRated,
    "session_viewers": SessionViewers,
    "messages_read": MessagesRead,
    "session_event": SessionChangedBy,
    "session_updated": SessionUpdated,
    "staff_status": StaffStatus,
    "error": FrameRefused,
    "pong": Pong,
}
