"""Models of REST requests. They accept camelCase and snake_case, numbers and digit strings, and blanks as absent.

They check the form only, with errors that never quote the input. The database decides what a caller may do.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

BIGINT = 2**63 - 1
EXACT = 2**53 - 1
"""The largest number that every reader of JSON takes exactly: the documented bound, and the database's for players."""
MAX_TEXT = 4000
MAX_PAGE = 500
MAX_FILES = 5
"""Files of one message."""

_DIGITS = re.compile(r"[0-9]{1,19}")
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
EXAMPLE_MESSAGE = "6f1c2a34-9b1d-4f7e-8a55-0d6f3c1b2a90"
EXAMPLE_SESSION = "0b7e8f52-3c1a-4a6d-9d1e-5f2b7c8d9e01"


def whole(low: int, high: int) -> BeforeValidator:
    """Take a whole number, or its digits, from `low` to `high`."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            text = "must be a whole number from {low} to {high}"
            raise PydanticCustomError("whole_number", text, {"low": low, "high": high})
        return value

    return BeforeValidator(read)


def _uuid(value: Any) -> Any:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise PydanticCustomError("uuid", "must be a UUID")
    return str(UUID(value))


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("text", "must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("text", "must be well-formed Unicode") from None
    if "\0" in value:
        raise PydanticCustomError("text", "must not hold NUL characters")
    return value


def _chat(value: Any, info: ValidationInfo) -> Any:
    if value in (None, "") and info.data.get("attachment_ids"):
        return ""
    if value is None:
        raise PydanticCustomError("missing", "Field required")
    if not 1 <= len(text := _text(value)) <= MAX_TEXT:
        raise PydanticCustomError("length", "must have 1 to {most} characters", {"most": MAX_TEXT})
    return text


def blank_as_none(value: Any) -> Any:
    """Take an empty parameter for an absent one."""
    return None if value == "" else value


def _number(low: int, high: int) -> dict[str, Any]:
    return {
        "anyOf": [
            {"type": "integer", "minimum": low, "maximum": high},
            {"type": "string", "pattern": "^[0-9]{1,18}$"},
        ]
    }


PlayerId = Annotated[
    int, whole(1, BIGINT), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": EXACT})
]
Seq = Annotated[int, whole(0, BIGINT), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": EXACT})]
Limit = Annotated[
    int, whole(1, MAX_PAGE), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_PAGE})
]
Uuid = Annotated[str, BeforeValidator(_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
Text = Annotated[str, BeforeValidator(_text)]
Chat = Annotated[
    str,
    BeforeValidator(_chat),
    Field(validate_default=True, description="May be absent in a message with files."),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
]
"""The text of a message, whose `attachment_ids` come before it in its model."""
NO_TEXT: Any = None

# A missing value and a blank one are the same.
AnyPlayer = Annotated[
    PlayerId | None,
    BeforeValidator(blank_as_none),
    WithJsonSchema({"anyOf": [*_number(1, EXACT)["anyOf"], {"type": "null"}]}),
]
AnySeq = Annotated[Seq | None, BeforeValidator(blank_as_none)]
AfterSeq = Annotated[
    AnySeq,
    Field(
        examples=[12],
        description="The last `seq` that the writer has seen, for staff's messages, with `sessionId`: 409 `session_moved` if"
        " another staff member has written after it.",
    ),
]
AnyUuid = Annotated[Uuid | None, BeforeValidator(blank_as_none)]
AttachmentIds = Annotated[
    list[Uuid] | None,
    Field(
        max_length=MAX_FILES,
        description="Files that were begun and uploaded, in the order in which they are shown.",
    ),
]
AnyText = Annotated[Text | None, BeforeValidator(blank_as_none)]
TemplateId = Annotated[
    AnyUuid,
    Field(
        description="For staff's messages: the template from which the text was taken; blanks must be filled in."
    ),
]


class Input(BaseModel):
    """What a caller sends: either spelling of every field, the documented one where both are there."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class SendMessage(Input):
    """A message to send."""

    player_id: AnyPlayer = Field(
        None, examples=[29], description="Whose conversation; a player's own by default."
    )
    attachment_ids: AttachmentIds = None
    message: Chat = Field(NO_TEXT, examples=["Is table 4 open?"])
    player_name: AnyText = Field(
        None, examples=["Asha"], description="Shown where the player has no profile."
    )
    id: AnyUuid = Field(
        None,
        examples=[EXAMPLE_MESSAGE],
        description="Chosen by the client, once per message: makes it safe to send again.",
    )
    session_id: AnyUuid = Field(None, examples=[EXAMPLE_SESSION])
    after_seq: AfterSeq = None
    sender: AnyText = Field(
        None,
        examples=["player"],
        description="`player` or `staff` (also `gre`, `gre_staff`); must be what the token is.",
    )
    sender_type: AnyText = Field(None, description="The same as `sender`.")
    template_id: TemplateId = None
    timestamp: Any = Field(None, description="Ignored: the server's clock counts.")


class SendReply(Input):
    """Staff's answer, to a session or to a player."""

    session_id: AnyUuid = Field(None, examples=[EXAMPLE_SESSION])
    player_id: AnyPlayer = Field(None)
    attachment_ids: AttachmentIds = None
    message: Chat = Field(NO_TEXT, examples=["It is free from eight."])
    id: AnyUuid = Field(
        None, description="Chosen by the client, once per message: makes it safe to send again."
    )
    after_seq: AfterSeq = None
    template_id: TemplateId = None


class ReadMark(Input):
    """Up to which message the caller has read."""

    up_to_seq: Seq = Field(
        examples=[12],
        description="The `seq` of the last message read; beyond the last one counts as the last one.",
    )


class SessionStatus(Input):
    """What a session becomes."""

    status: Literal["active", "assigned", "closed"] = Field(examples=["assigned"])
    staff_id: AnyText = Field(
        None, examples=["s1"], description="To whom it is assigned; to the caller by default."
    )


class EnablePlayer(Input):
    """Whether a player may chat."""

    enabled: bool = True


class History(BaseModel):
    """Which messages of a player."""

    limit: Limit = Field(200, examples=[50])
    before: AnyUuid = Field(
        None, description="The page before this message: what `X-Next-Before` or `next` said."
    )
    session_id: AnyUuid = Field(
        None,
        validation_alias=AliasChoices("sessionId", "session_id"),
        description="Of this session alone.",
    )
    after_seq: AnySeq = Field(
        None,
        validation_alias=AliasChoices("after_seq", "afterSeq"),
        description="What came after it, oldest first; needs `sessionId`.",
    )


class SessionHistory(BaseModel):
    """Which messages of a session."""

    after_seq: AnySeq = Field(
        None,
        validation_alias=AliasChoices("after_seq", "afterSeq"),
        description="What came after it, oldest first.",
    )
    before_seq: AnySeq = Field(
        None,
        validation_alias=AliasChoices("before_seq", "beforeSeq"),
        description="The newest ones before it.",
    )
    limit: Limit = Field(200, examples=[50])


class SessionStory(BaseModel):
    """The page of a session's events."""

    after_rev: AnySeq = Field(
        None,
        validation_alias=AliasChoices("after_rev", "afterRev"),
        description="Only later events: `rev` of the last event of the page before.",
    )


class SessionList(BaseModel):
    """Which sessions."""

    status: Annotated[Literal["active", "closed"] | None, BeforeValidator(blank_as_none)] = None
    assigned: AnyText = Field(
        None, examples=["me"], description="`me`, `none`, or the id of somebody of the staff."
    )
    limit: Limit = Field(50, examples=[50])
    cursor: AnyText = Field(None, description="What `next` said.")


class SessionQueue(SessionList):
    """Which sessions, and of whom."""

    player: AnyText = Field(
        None, examples=["asha"], description="A player's id, or how its name begins (in either case)."
    )


class DeadList(BaseModel):
    """Which dead letters."""

    sink: AnyText = Field(None, examples=["pusher"])
    limit: Limit = Field(50, examples=[50])
    cursor: AnyText = Field(None, description="What `next` said.")


class RetryDead(Input):
    """Which dead letters to send again."""

    ids: list[Uuid] = Field(max_length=100, examples=[[EXAMPLE_MESSAGE]])
