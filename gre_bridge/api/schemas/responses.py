"""What goes out over REST, as the portals know it.

These models describe what the database's functions build: they document it and the tests hold it against them,
but no answer is built or checked with them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from gre_bridge.api.schemas.codes import Code
from gre_bridge.api.schemas.fields import Described, absent
from gre_bridge.api.schemas.files import Attachment
from gre_bridge.api.schemas.requests import EXAMPLE_MESSAGE, EXAMPLE_SESSION


class Message(Described):
    """M: a message."""

    id: UUID = Field(examples=[EXAMPLE_MESSAGE])
    seq: int = Field(
        ge=1, examples=[12], description="1, 2, 3 … in its session, without gaps, in the order of commit."
    )
    session_id: UUID = Field(examples=[EXAMPLE_SESSION])
    player_id: int = Field(examples=[29])
    player_name: str | None = Field(examples=["Asha"])
    message: str = Field(examples=["Is table 4 open?"])
    sender: Literal["player", "staff", "system"]
    sender_name: str | None = Field(examples=["Asha"])
    status: Literal["sent", "delivered", "read"]
    timestamp: datetime = Field(
        examples=["2026-11-22T17:08:14.171Z"], description="The same as `created_at`."
    )
    created_at: datetime = Field(examples=["2026-11-22T17:08:14.171Z"])
    auto: Literal[True] = absent(
        description="True for a message that the server wrote by itself; otherwise absent."
    )
    attachments: list[Attachment] = absent(description="Its files, in their order; absent without any.")


class Session(Described):
    """S: a session."""

    id: UUID = Field(examples=[EXAMPLE_SESSION])
    player_id: int = Field(examples=[29])
    player_name: str | None = Field(examples=["Asha"])
    status: Literal["active", "closed"]
    assigned_staff_id: str | None = Field(examples=["s1"])
    last_seq: int
    rev: int = Field(description="Grows with every change of the session.")
    unread_by_staff: int
    unread_by_player: int
    last_message: str | None
    last_message_at: datetime | None
    created_at: datetime
    closed_at: datetime | None
    closed_by: Literal["player", "idle", "system"] = absent(
        description="The side that closed it; absent if it is open, or if staff closed it."
    )
    cycle: int = absent(ge=1, description="One more with each reopening; absent before the first.")
    rating: int = absent(ge=1, le=5, description="The player's rating of this cycle; absent without one.")


class Answer(Described):
    """The field of every answer."""

    success: Literal[True]


class Sent(Answer):
    """The message as it was stored."""

    message_id: UUID = Field(alias="messageId")
    session_id: UUID = Field(alias="sessionId")
    message: Message
    data: Message = Field(description="The same as `message`, for older portals.", deprecated=True)


class Marked(Answer):
    """Up to where one side has read the other's messages."""

    session_id: UUID = Field(alias="sessionId")
    by: Literal["player", "staff"]
    up_to_seq: int = Field(alias="upToSeq", examples=[12], description="The mark as it is now.")
    timestamp: datetime | None = Field(description="When it was set; null while nothing was read.")
    changed: bool = Field(description="False where the mark was there already, or further.")


class Me(Answer):
    """Who the caller is."""

    role: Literal["player", "staff", "admin"]
    player_id: int | None = Field(alias="playerId", examples=[29], description="Of a player.")
    staff_id: str | None = Field(alias="staffId", examples=["s1"], description="Of staff and admins.")
    display_name: str | None = Field(
        alias="displayName", examples=["Asha"], description="The stored name, if there is one."
    )
    chat_enabled: bool = Field(
        alias="chatEnabled", description="False for a player whose chat is off; true for everybody else."
    )
    expires_at: datetime | None = Field(
        alias="expiresAt", description="When the token ends; null if it does not."
    )
    rating_enabled: Literal[True] = absent(
        alias="ratingEnabled",
        description="True for a player who can rate closed sessions; otherwise absent.",
    )


class StaffOnline(Described):
    """Somebody of the staff who is there, as players know it."""

    staff_id: str = Field(alias="staffId", examples=["s1"])
    display_name: str | None = Field(alias="displayName", examples=["Sam"])
    status: Literal["online", "away"]


class DeskRead(Answer):
    """The staff's desk, as players know it."""

    open: bool = Field(description="True inside the opening hours, and always for a desk without any.")
    opens_at: datetime | None = Field(
        alias="opensAt",
        description="The next opening of a closed desk; null if it is open, or does not open within 400 days.",
    )
    closes_at: datetime | None = Field(
        alias="closesAt",
        description="Until when an open desk stays open; null if it is closed, or stays open for 8 days.",
    )
    timezone: str | None = Field(
        examples=["Europe/Malta"], description="The time zone of the opening hours; null without any."
    )
    now: datetime = Field(description="The server's time, to which the others are relative.")
    staff: list[StaffOnline] = Field(description="Those who are online, then those who are away, by name.")


class Conversation(Session):
    """A session with those of its messages that are on the page."""

    chat_messages: list[Message]


class ChatHistory(Answer):
    """One page of a player's history."""

    messages: list[Message]
    conversations: list[Conversation]
    next: UUID | None = Field(description="`before` of the page before this one.")


class Sessions(Answer):
    """One page of sessions, the latest activity first."""

    sessions: list[Session]
    next: str | None = Field(description="`cursor` of the next page.")


class Waiting(Session):
    """A session in the queue."""

    waiting_since: datetime | None = Field(
        examples=["2026-11-22T17:08:14.171Z"],
        description="Time of the player's first message since staff's last one; null when answered or closed.",
    )
    replied: bool = absent(
        description="True if staff have written since the session was opened or reopened; only while `first_reply_goal` is set.",
    )


class Queue(Answer):
    """One page of sessions, in the order that a desk works in."""

    sessions: list[Waiting]
    next: str | None = Field(description="`cursor` of the next page.")


class Block(Described):
    """Why a player's chat is disabled."""

    until: datetime | None = Field(description="The time at which it ends by itself; null: it does not.")
    reason: str | None = Field(examples=["Insulted a dealer."])
    by: str | None = Field(examples=["s1"], description="Id of the staff member; null for a back end.")
    at: datetime


class Player(Described):
    """A player's profile."""

    player_id: int = Field(alias="playerId", examples=[29])
    display_name: str | None = Field(alias="displayName", examples=["Asha"])
    enabled: bool = Field(description="Whether it may chat.")
    block: Block = absent(description="Present while a block lasts.")


class PlayerKnown(Answer):
    """What is known of the player."""

    player: Player


class SessionMessages(Answer):
    """A session and one page of its messages."""

    session: Session
    messages: list[Message]
    has_more: bool


class SessionChanged(Answer):
    """The session after the change."""

    session: Session


class SessionClosed(Answer):
    """The session that was open, if one was."""

    message: Literal["Chat session closed"]
    session: Session | None


class PlayerEnabled(Answer):
    """What holds for the player now."""

    player_id: int = Field(alias="playerId", examples=[29])
    enabled: bool


class AllEnabled(Answer):
    """How many players had been disabled."""

    count: int = Field(examples=[12])


class PusherSignature(Described):
    """What pusher-js hands on to Pusher."""

    auth: str = Field(
        examples=["278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"]
    )
    channel_data: str = absent(description="On presence channels: JSON of the member.")


class PusherUserSignature(Described):
    """What pusher-js hands on to Pusher to sign in."""

    auth: str = Field(
        examples=["278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"]
    )
    user_data: str = Field(description="JSON of the user: id, and user_info with name and role.")


class Error(Described):
    """Every answer that is not 2xx."""

    success: Literal[False]
    error: str = Field(examples=["chat is disabled for this player"], description="One line to read.")
    code: Code = Field(
        examples=["chat_disabled"],
        description="For programs. A trigger of the project's own may refuse with another one.",
    )
    details: dict[str, Any] = absent(
        examples=[{"by": "s2"}], description="For programs; present with some codes only."
    )
    request_id: str = Field(examples=["8c5c4c1f0c9e4d53a4f4f5b0f7f6a1d2"])


_SAID = {
    400: "Malformed, or refused by the rules",
    401: "No valid token",
    403: "Not allowed; `chat_disabled` says that the player's chat is off",
    404: "Not there, or not the caller's",
    409: "In conflict with what is stored: `id_conflict`, `session_closed`, `session_open`, `session_taken`, `session_moved` …",
    413: "The body is longer than 64 KB",
    422: "A field is not what it must be; `error` names it",
    429: "Too fast; `Retry-After` says for how long to wait",
    503: "The database does not answer, or its schema is older than the daemon (`schema_outdated`); `Retry-After` says when to try again",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a path may answer besides success, for the documentation."""
    return {
        status: {"model": Error, "description": _SAID[status]}
        for status in sorted({*statuses, 400, 401, 403, 422, 429, 503})
    }
