"""The story of a session, as REST returns it. As in `responses`, nothing is built or checked with these models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from gre_bridge.api.schemas.fields import Described


class SessionEvent(Described):
    """One change of a session, with its place between the messages."""

    rev: int = Field(ge=1, examples=[5], description="The session's `rev` after the event.")
    at: datetime = Field(examples=["2026-11-22T17:08:14.171Z"])
    after_seq: int = Field(
        ge=0, examples=[12], description="`seq` of the last message before the event; 0 before the first."
    )
    kind: Literal[
        "opened",
        "closed",
        "reopened",
        "assigned",
        "released",
        "transferred",
        "rated",
        "blocked",
        "unblocked",
        "deleted",
    ]
    staff_id: str | None = Field(
        examples=["s1"],
        description="The staff member to whom the session is assigned by the event, or was until `released`.",
    )
    by_staff_id: str | None = Field(
        examples=["s2"],
        description="The staff member who caused the event; null for a player, a back end or the server.",
    )
    data: dict[str, Any] = Field(
        examples=[{"from": "s2"}],
        description="`closed`: `by` (`staff`, `player`, `idle` or `system`). `reopened`: `cycle`. `transferred`: `from`. `rated`: `score`. `blocked`: `until`, if the block has an end. `opened`: empty, or"
        " `adopted` and the state at that time for a session that is older than gre-bridge.",
    )


class SessionEvents(Described):
    """A page of the story, in the order of `rev`."""

    success: Literal[True]
    events: list[SessionEvent]
    has_more: bool
