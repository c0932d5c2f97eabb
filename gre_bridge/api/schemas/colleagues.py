"""What staff write and read beside a conversation: notes, blocks, what a search finds. As in `responses`, no answer is built with these models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AliasChoices, AwareDatetime, BaseModel, BeforeValidator, Field

from gre_bridge.api.schemas.fields import Described
from gre_bridge.api.schemas.requests import (
    EXAMPLE_SESSION,
    AnyPlayer,
    AnySeq,
    AnyText,
    AnyUuid,
    Input,
    Text,
    Uuid,
    blank_as_none,
)
from gre_bridge.api.schemas.responses import Message, Session

AnyTime = Annotated[AwareDatetime | None, BeforeValidator(blank_as_none)]


class NoteList(BaseModel):
    """Which notes of a session."""

    after_n: AnySeq = Field(
        None,
        validation_alias=AliasChoices("after_n", "afterN"),
        description="Only later notes: `n` of the last note of the page before.",
    )


class AddNote(Input):
    """A note to add."""

    session_id: Uuid = Field(examples=[EXAMPLE_SESSION])
    text: Text = Field(
        examples=["Has asked for a refund twice."],
        description="1 to 4,000 characters, at least one of them visible.",
    )
    id: AnyUuid = Field(None, description="Chosen by the client, once per note: makes it safe to send again.")


class BlockPlayer(Input):
    """For how long, and why."""

    until: AwareDatetime | None = Field(
        None,
        examples=["2026-11-29T09:00:00Z"],
        description="With a time zone; without it the block has no end.",
    )
    reason: AnyText = Field(
        None, examples=["Insulted a dealer."], description="For staff, at most 500 characters."
    )


class Search(BaseModel):
    """Which messages."""

    q: Text = Field(
        examples=["refund"],
        description="2 to 100 characters: up to 8 words, each of which must be in the text, in either case.",
    )
    since: AnyTime = Field(None, validation_alias="from", description="Not before this time.")
    until: AnyTime = Field(None, validation_alias="to", description="Before this time.")
    staff: AnyText = Field(None, examples=["s1"], description="Written by this staff member.")
    player: AnyPlayer = Field(None, examples=[29], description="In the sessions of this player.")
    cursor: AnyText = Field(None, description="What `next` said.")


class FoundMessage(Message):
    """A message with its session, whose `last_message` is cut to 200 characters."""

    session: Session


class Found(Described):
    """A page of the messages found, the newest first."""

    success: Literal[True]
    messages: list[FoundMessage]
    next: str | None = Field(
        description="`cursor` of the next page; a page can end early, even without a message, where the search takes long."
    )


class Note(Described):
    """N: a private note of staff."""

    id: UUID
    session_id: UUID = Field(examples=[EXAMPLE_SESSION])
    n: int = Field(ge=1, examples=[1], description="1, 2, 3 … in its session.")
    after_seq: int = Field(
        ge=0, examples=[12], description="`seq` of the last message before the note; 0 before the first."
    )
    staff_id: str = Field(examples=["s1"])
    staff_name: str = Field(examples=["Sam"])
    text: str = Field(examples=["Has asked for a refund twice."])
    created_at: datetime = Field(examples=["2026-11-22T17:08:14.171Z"])


class Notes(Described):
    """A page of a session's notes, in order."""

    success: Literal[True]
    notes: list[Note]
    has_more: bool


class NoteStored(Described):
    """The note as it was stored."""

    success: Literal[True]
    note: Note
