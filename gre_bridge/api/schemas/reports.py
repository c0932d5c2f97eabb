"""Figures over REST: reports, the lists behind their cells, the check, the export, a rating. As in `responses`, no answer is built with these models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AliasChoices, AwareDatetime, BaseModel, BeforeValidator, Field, WithJsonSchema

from gre_bridge.api.schemas.fields import Described
from gre_bridge.api.schemas.requests import (
    EXAMPLE_SESSION,
    AnyText,
    Input,
    Limit,
    Text,
    Uuid,
    blank_as_none,
    whole,
)
from gre_bridge.api.schemas.responses import Answer
from gre_bridge.exports import ExportFormat, ExportList

By = Literal["none", "hour", "day", "week", "month", "staff"]
Basis = Literal["asked", "answered", "closed"]
Metric = Literal[
    "sessions_opened", "sessions_closed", "closed_idle", "missed", "dropped", "transfers", "messages_player", "messages_staff",
    "messages_auto", "players", "first_reply", "reply", "time_to_close", "handle", "rating_asked", "rating", "within_goal",
]  # fmt: skip
Score = Annotated[int, whole(1, 5), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 5})]


class Range(BaseModel):
    """From when to when."""

    since: AwareDatetime = Field(
        validation_alias="from", examples=["2026-11-01T00:00:00Z"], description="Not before this time."
    )
    until: AwareDatetime = Field(
        validation_alias="to", examples=["2026-12-01T00:00:00Z"], description="Before this time."
    )


class ReportQuery(Range):
    """What to count, and how."""

    timezone: Text = Field(
        "UTC", examples=["Europe/Malta"], description="An IANA name: in which days, weeks and months are cut."
    )
    by: By = Field("none", examples=["day"], description="One row for each; `none`: the total only.")
    basis: Annotated[Basis | None, BeforeValidator(blank_as_none)] = Field(
        None,
        examples=["closed"],
        description="The time to which replies belong: of the question, of the answer, or of the close of the cycle; by default each"
        " figure has its own.",
    )
    in_hours: bool = Field(
        False,
        validation_alias=AliasChoices("in_hours", "inHours"),
        examples=[False],
        description="Durations in opening hours, as they were then.",
    )


class CellQuery(ReportQuery):
    """Which cell of the report."""

    metric: Metric = Field(examples=["reply"])
    key: AnyText = Field(
        None, examples=["s1"], description="`key` of the row; of the row without one, and of the total, none."
    )
    limit: Limit = Field(50, examples=[50])
    cursor: AnyText = Field(None, description="What `next` said.")


class CheckQuery(Range):
    """Which sessions to check: those that changed in this time."""

    cursor: AnyText = Field(None, description="What `next` said.")


AnyTime = Annotated[AwareDatetime | None, BeforeValidator(blank_as_none)]


class ExportQuery(BaseModel):
    """What to export."""

    what: ExportList = Field(examples=["messages"])
    format: ExportFormat = Field("ndjson", examples=["csv"])
    since: AnyTime = Field(None, validation_alias="from", description="Not before this time.")
    until: AnyTime = Field(None, validation_alias="to", description="Before this time.")


class RateSession(Input):
    """What a player says of a closed session."""

    session_id: Uuid = Field(examples=[EXAMPLE_SESSION])
    score: Score = Field(examples=[5], description="5 is the best.")
    comment: AnyText = Field(
        None, examples=["Quick and friendly."], description="For staff, at most 1,000 characters."
    )


class Durations(Described):
    """D: durations in whole seconds. Median and p90 are durations that occurred (nearest rank)."""

    n: int = Field(ge=0)
    mean: float | None = Field(description="Rounded to three decimals; null, like the others, if n is 0.")
    median: int | None
    p90: int | None
    max: int | None


class MessageCounts(Described):
    """Messages by sender; `auto` are those that the server wrote by itself."""

    player: int
    staff: int
    auto: int


class Ratings(Described):
    """Players' ratings."""

    asked: int = Field(description="Sessions closed of which a rating was asked.")
    answered: int
    mean: float | None
    good_share: float | None = Field(description="The share of 4 and 5.")


class WithinGoal(Described):
    """Answers to questions that had a goal."""

    n: int
    met: int


class Figures(Described):
    """The figures of one row. docs/reports.md defines each."""

    sessions_opened: int
    sessions_closed: int
    closed_idle: int
    missed: int
    dropped: int
    transfers: int
    messages: MessageCounts
    players: int
    first_reply: Durations
    reply: Durations
    time_to_close: Durations
    handle: Durations
    rating: Ratings
    within_goal: WithinGoal


class ReportRow(Figures):
    """A row of a report."""

    key: str | None = Field(
        None,
        examples=["2026-11-01T00:00:00.000Z", "s1"],
        description="The start of the time, or the id of the staff member; null for what is nobody's.",
    )
    start: datetime | None = Field(None, description="Of a row for a time; before it nothing is counted.")
    end: datetime | None = Field(None, description="Of a row for a time; from it on nothing is counted.")


class Report(Answer):
    """A report; what was asked is repeated."""

    timezone: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    by: By
    basis: Basis | None
    in_hours: bool
    whole_from: datetime | None = Field(description="Before this time gre-bridge was not there to count.")
    rows: list[ReportRow]
    total: ReportRow


class Counted(Described):
    """One thing that a cell counts."""

    session_id: UUID = Field(
        examples=[EXAMPLE_SESSION], description="Of a session that was deleted it leads nowhere."
    )
    cycle: int | None
    at: datetime
    value: float | None = Field(description="Seconds, or a score; null where only the number counts.")
    count: int | None = Field(description="Of messages: their number.")
    staff_id: str | None


class CountedSessions(Answer):
    """A page of what a cell counts."""

    items: list[Counted]
    next: str | None = Field(description="`cursor` of the next page.")


class StaffLoad(Described):
    """A staff member's presence and load."""

    staff_id: str = Field(examples=["s1"])
    display_name: str | None = Field(examples=["Sam"])
    status: Literal["online", "away", "offline"]
    open_sessions: int
    max_sessions: int | None


class Live(Answer):
    """The desk at this moment."""

    at: datetime
    staff: list[StaffLoad]
    open: int = Field(description="Open sessions.")
    waiting: int = Field(description="Those whose player waits for an answer.")
    unassigned: int = Field(description="Those that are nobody's.")
    longest_wait: int | None = Field(description="Seconds; null if nobody waits.")


class Difference(Described):
    """A figure that is not what the session's messages and events say, or a packed hour that is not what its figures say."""

    session_id: UUID | None = Field(description="null: a packed hour.")
    cycle: int | None
    what: str = Field(
        examples=["question 2"],
        description="`cycle`, `question N`, `QUARTER SENDER STAFF` (number of messages) or `packed FACT HOUR`; times are UTC.",
    )
    expected: Any
    found: Any


class Checked(Answer):
    """A page of the check."""

    checked: int = Field(description="Sessions compared.")
    incomplete: int = Field(description="Sessions whose messages are not all there: they cannot be compared.")
    differences: list[Difference]
    next: str | None = Field(description="`cursor` of the next page.")
