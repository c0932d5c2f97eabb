"""Templates and auto-replies: what is sent and what is returned over REST.

As in `responses`, no answer is built or checked with these models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, WithJsonSchema

from gre_bridge.api.schemas.fields import Described
from gre_bridge.api.schemas.requests import EXAMPLE_MESSAGE, EXAMPLE_SESSION, AnyText, Input, Text, Uuid

_TEXTS = "The text in each language, with placeholders such as `{{player_name|there}}`."
_EXAMPLE = {"en": "Hello {{player_name|there}}, I am {{staff_name}}."}

Shortcut = Annotated[
    Text,
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,39}$", "examples": ["hello"]}),
]
Texts = Annotated[
    dict[Text, Text],
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}, "examples": [_EXAMPLE]}),
]
Occasion = Literal[
    "opened", "reopened", "closed_hours", "nobody_online", "waiting", "idle_warning", "idle_close"
]
Once = Literal["cycle", "day", "question"]
Wait = Annotated[float, Field(ge=1, le=30 * 86_400, allow_inf_nan=False, strict=True)]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)]


class SaveTemplate(Input):
    """The fields of a template to change. A field that is absent stays as it is."""

    shortcut: Shortcut = Field(default_factory=str, description="What staff type to find it.")
    title: Text = Field(default_factory=str, examples=["A greeting"])
    texts: Texts = Field(
        default_factory=dict, description=f"{_TEXTS} `{{{{?amount}}}}` is a blank for the writer."
    )
    staff_id: AnyText = Field(
        None,
        description="Null: everybody's, which admins write. Otherwise the caller's. Absent: everybody's for an admin.",
    )
    active: bool = Field(True, description="False: staff do not find it.")


class CreateTemplate(SaveTemplate):
    """A template to create."""

    shortcut: Shortcut
    title: Text = Field(examples=["A greeting"])
    texts: Texts


class RenderTemplate(Input):
    """The session for which a template is rendered."""

    session_id: Uuid = Field(examples=[EXAMPLE_SESSION])


class SaveAutoReply(Input):
    """The fields of a rule to change. A field that is absent stays as it is."""

    name: Text = Field(default_factory=str, examples=["Greeting"])
    occasion: Occasion = Field(default_factory=lambda: "opened", examples=["opened"])
    wait: Wait | None = Field(None, description="For `waiting`: seconds in open hours since the question.")
    once: Once = Field(default_factory=lambda: "cycle", examples=["cycle"])
    hours: AnyText = Field(None, description="A name of opening hours.", examples=["desk"])
    texts: Texts = Field(default_factory=dict, description=_TEXTS)
    priority: Priority = 0
    push: bool = Field(False, description="Whether the player also gets a push.")
    active: bool = True
    valid_from: AwareDatetime | None = None
    valid_to: AwareDatetime | None = None


class CreateAutoReply(SaveAutoReply):
    """A rule to create."""

    name: Text = Field(examples=["Greeting"])
    occasion: Occasion = Field(examples=["opened"])
    texts: Texts


class Template(Described):
    """A text that staff send often."""

    id: UUID = Field(examples=[EXAMPLE_MESSAGE])
    shortcut: str = Field(examples=["hello"])
    title: str = Field(examples=["A greeting"])
    texts: dict[str, str] = Field(examples=[_EXAMPLE], description=_TEXTS)
    staff_id: str | None = Field(description="Whose own template it is; null: everybody's.")
    uses: int = Field(ge=0, description="Messages sent from it.")
    active: bool


class AutoReply(Described):
    """A rule for a message that the server writes by itself."""

    id: UUID = Field(examples=[EXAMPLE_MESSAGE])
    name: str = Field(examples=["Greeting"])
    occasion: Occasion
    wait: float | None = Field(description="For `waiting`: seconds in open hours since the question.")
    once: Once
    hours: str | None = Field(
        description="`closed_hours` applies outside them, `waiting` counts its time in them; null: the desk's. Other"
        " occasions apply within them; null: at any time."
    )
    texts: dict[str, str] = Field(examples=[_EXAMPLE], description=_TEXTS)
    priority: int = Field(
        description="Of the rules that apply to a message only the one with the highest answers."
    )
    push: bool = Field(description="Whether the player also gets a push.")
    active: bool
    valid_from: datetime | None
    valid_to: datetime | None


class _Answer(Described):
    success: Literal[True]


class Templates(_Answer):
    """Everybody's templates and the caller's own, by shortcut."""

    templates: list[Template]


class TemplateRead(_Answer):
    """The template."""

    template: Template


class Rendered(_Answer):
    """The text of a template for a session."""

    text: str = Field(examples=["Hello Asha, I am Sam."])
    missing: list[str] = Field(
        examples=[["amount"]],
        description="Blanks, and placeholders without a value and a fallback: they are left in `text`, and a message with"
        " them is refused (`template_incomplete`).",
    )


class AutoReplyNow(Described):
    """The auto-reply that a new session's first message would get at this moment."""

    id: UUID
    text: str
    missing: list[str]


class AutoReplies(_Answer):
    """The rules, highest priority first."""

    auto_replies: list[AutoReply]
    now: AutoReplyNow | None = Field(
        description="What a new session's first message would get at this moment."
    )


class AutoReplyRead(_Answer):
    """The rule."""

    auto_reply: AutoReply


class Removed(_Answer):
    """It is deleted."""
