"""The frames of `/ws`: one model for each type that a client sends, and the writer of the server's frames.

Fields are read in camelCase and in snake_case; unknown fields are ignored.
"""

from __future__ import annotations

import contextlib
import json
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, ValidationError

from gre_bridge.api.schemas.reports import Score
from gre_bridge.api.schemas.requests import (
    NO_TEXT,
    AnyPlayer,
    AnySeq,
    AnyText,
    AnyUuid,
    AttachmentIds,
    Chat,
    Input,
    Seq,
    Text,
    Uuid,
)


def _as_text(value: Any) -> Any:
    """Turn a numeric id into its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Frame(Input):
    """The fields of every type."""

    client_id: Annotated[Text | None, Field(max_length=64)] = None


class Authenticate(Frame):
    """Identifies the client; sent again before the token expires."""

    token: Annotated[AnyText, Field(max_length=16_384)] = None
    role: Literal["player", "gre_staff", "gre", "staff", "admin"] | None = None
    player_id: AnyPlayer = None
    staff_id: Annotated[AnyText, BeforeValidator(_as_text)] = None
    since: dict[Uuid, Seq] | None = Field(None, max_length=5000)


class SendMessage(Frame):
    """Sends a message; `id` makes it idempotent, the acknowledgement returns `clientId`."""

    attachment_ids: AttachmentIds = None
    message: Chat = NO_TEXT
    player_id: AnyPlayer = None
    session_id: AnyUuid = None
    id: AnyUuid = None
    after_seq: AnySeq = None
    template_id: AnyUuid = None


class Typing(Frame):
    """Says that the client types, or has stopped; with `"for": "note"` a note of staff."""

    session_id: AnyUuid = None
    typing: bool = True
    purpose: Literal["note"] | None = Field(None, alias="for")


class AddNote(Frame):
    """Adds a private note of staff; `id` makes it idempotent."""

    session_id: Uuid
    text: Text
    id: AnyUuid = None


class RateSession(Frame):
    """A player's rating of its closed session."""

    session_id: Uuid
    score: Score
    comment: AnyText = None


class Viewing(Frame):
    """Says that a staff member looks at a session, or has left it."""

    session_id: Uuid
    viewing: bool = True


class MarkRead(Frame):
    """Marks messages as read up to a seq."""

    session_id: Uuid
    up_to_seq: Seq


class SetStatus(Frame):
    """Sets the presence of a staff member."""

    status: Literal["online", "away", "offline"]


class Ping(Frame):
    """Asks for a pong."""


ClientFrame = (
    Authenticate | SendMessage | AddNote | RateSession | Typing | Viewing | MarkRead | SetStatus | Ping
)
CLIENT_FRAMES: dict[str, type[ClientFrame]] = {
    "authenticate": Authenticate,
    "send_message": SendMessage,
    "add_note": AddNote,
    "rate_session": RateSession,
    "typing": Typing,
    "viewing": Viewing,
    "mark_read": MarkRead,
    "set_status": SetStatus,
    "ping": Ping,
}
"""By the frame's `type`."""


def frame(kind: str, **body: object) -> str:
    """Return a server's frame as JSON text."""
    return orjson.dumps({"type": kind, **body}).decode()


class FrameError(ValueError):
    """Not a JSON object with a type."""


class FieldError(ValueError):
    """A frame with an invalid field. The message is one line; `client_id` is the frame's, if it has one."""

    def __init__(self, message: str, code: str, client_id: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.client_id = client_id


def _loads(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return orjson.loads(text)
    # A page that cuts a text inside an emoji sends half a surrogate pair: valid JSON, but invalid Unicode. orjson rejects
    # the whole frame; here it is one invalid field.
    if "\\ud" in text.lower():
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    raise FrameError("a frame is a JSON object")


def parse_frame(text: str) -> ClientFrame:
    """Parse a client's frame. Raises FrameError or FieldError, neither of which quotes the input."""
    data = _loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise FrameError('a frame is a JSON object with a "type"')
    client_id = data.get("clientId", data.get("client_id"))
    if not (isinstance(client_id, str) and len(client_id) <= 64 and client_id.isprintable()):
        client_id = None
    if (model := CLIENT_FRAMES.get(data["type"])) is None:
        raise FieldError("type: is not one of ours", "type_unknown", client_id)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "frame"
        raise FieldError(
            f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}", "value_invalid", client_id
        ) from None
