"""Files: what a caller sends, and what goes out. As in `responses`, no answer is built with these models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gre_bridge.api.schemas.codes import Code
from gre_bridge.api.schemas.fields import Described, absent
from gre_bridge.api.schemas.requests import (
    BIGINT,
    EXAMPLE_SESSION,
    AnyPlayer,
    AnyUuid,
    Input,
    Text,
    Uuid,
    whole,
)
from gre_bridge.storage.bucket import MAX_FILE_BYTES

MAX_LINKS = 100
EXAMPLE_ATTACHMENT = "9d3c7a10-52be-4f0a-8a36-1f0b6f8e2c41"


def _type(value: Any) -> Any:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= 127
        or not value.isascii()
        or not value.isprintable()
    ):
        raise PydanticCustomError("media_type", "must be a media type such as image/jpeg")
    return value


class BeginAttachment(Input):
    """A file that is about to be uploaded."""

    id: AnyUuid = Field(
        None,
        examples=[EXAMPLE_ATTACHMENT],
        description="Chosen by the client, once per file: makes it safe to send again, and to ask for a new upload URL.",
    )
    player_id: AnyPlayer = Field(
        None, examples=[29], description="Whose conversation; a player's own by default."
    )
    session_id: AnyUuid = Field(
        None, examples=[EXAMPLE_SESSION], description="Staff may name the session instead."
    )
    name: Text = Field(
        examples=["table.jpg"],
        description="The file's name, shown to people; at most 200 characters are kept.",
    )
    type: Annotated[
        str, BeforeValidator(_type), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 127})
    ] = Field(
        examples=["image/jpeg"],
        description="Its media type, as the upload will claim it. What the file is, is found out by looking at it.",
    )
    bytes: Annotated[
        int, whole(0, BIGINT), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_FILE_BYTES})
    ] = Field(examples=[284_113], description="Its exact size; a longer upload is refused.")
    alt: Text | None = Field(
        None,
        examples=["The seating plan of table 4"],
        description="What an image shows, for those who cannot see it. In a repeat, an empty text clears it, and null keeps it.",
    )


class LinksWanted(Input):
    """Files to show."""

    ids: list[Uuid] = Field(max_length=MAX_LINKS, examples=[[EXAMPLE_ATTACHMENT]])
    variant: Literal["thumb", "view", "file"] = Field(
        examples=["thumb"],
        description="`thumb` (at most 360 pixels) and `view` (2,048) of an image; `file`: the file, to be saved.",
    )


class Attachment(Described):
    """A: a file of the chat."""

    id: UUID = Field(examples=[EXAMPLE_ATTACHMENT])
    kind: Literal["image", "file"] = Field(
        description="`image`: shown by its `thumb` and `view`; `file`: to download. Final in state `ready`."
    )
    type: str = Field(examples=["image/jpeg"])
    name: str = Field(examples=["table.jpg"])
    alt: str | None = Field(examples=["The seating plan of table 4"])
    bytes: int = Field(examples=[284_113])
    width: int | None = Field(
        examples=[1600], description="Pixels of an image, upright; null until it was examined."
    )
    height: int | None = Field(examples=[1200])
    preview: str | None = Field(
        examples=["abcdef012345678999aabbccddeeff001122"],
        description="12 colours of an image (4 columns in 3 rows, row by row), 3 hex digits each as in CSS's `#abc`, for its place"
        " while it loads; null until it was examined.",
    )
    place: int | None = Field(ge=0, le=4, description="Its place in its message; null before it was sent.")
    state: Literal["awaited", "stored", "ready", "refused", "gone"]
    refused: str = absent(examples=["virus"], description="Why; only in state `refused`.")


class Upload(Described):
    """How to upload the bytes: one request to Supabase itself."""

    url: str = Field(description="Signed: whoever has it may upload this one file. Do not store it.")
    method: Literal["PUT"]
    headers: dict[str, str] = Field(examples=[{"content-type": "image/jpeg"}])
    expires_at: datetime | None = Field(
        alias="expiresAt", description="Begin again with the same `id` for a new one."
    )


class AttachmentBegun(Described):
    """The file that is awaited."""

    success: Literal[True]
    attachment: Attachment
    upload: Upload | None = Field(description="Null if the bytes are there already.")


class AttachmentKnown(Described):
    """The file as it is now."""

    success: Literal[True]
    attachment: Attachment


class AttachmentDropped(Described):
    """The file is given up."""

    success: Literal[True]


class Link(Described):
    """A link of some minutes. It cannot be revoked: do not store it."""

    url: str
    expires_at: datetime = Field(alias="expiresAt")


class NoLink(Described):
    """Why there is none."""

    code: Code = Field(examples=["attachment_not_found"])


class Links(Described):
    """A link, or the reason why there is none, for each id."""

    success: Literal[True]
    urls: dict[str, Link | NoLink]
