"""Assignment, settings and opening hours: what is sent and what is returned over REST.

As in `responses`, no answer is built or checked with these models.
"""

from __future__ import annotations

import contextlib
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gre_bridge.api.schemas.fields import Described, absent
from gre_bridge.api.schemas.requests import (
    EXAMPLE_SESSION,
    AnySeq,
    AnyText,
    AnyUuid,
    Input,
    Text,
    Uuid,
    whole,
)
from gre_bridge.api.schemas.responses import Answer, SessionChanged

MAX_SECONDS = 366 * 86_400
MAX_WEEK, MAX_DATES = 500, 1000
"""Entries of opening hours: of the week, and single days."""

_NAME = r"^[a-z0-9][a-z0-9_-]{0,39}$"
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _seconds(value: Any) -> Any:
    # NaN is in no range.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        text = "must be a number of seconds from 0 to {most}"
        raise PydanticCustomError("seconds", text, {"most": MAX_SECONDS})
    return value


def _time(value: Any) -> Any:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise PydanticCustomError("time", "must be a time as HH:MM")
    return value


def _day(value: Any) -> Any:
    if isinstance(value, str) and _DAY.fullmatch(value):
        with contextlib.suppress(ValueError):
            date.fromisoformat(value)
            return value
    raise PydanticCustomError("day", "must be a day as YYYY-MM-DD")


Seconds = Annotated[
    float, BeforeValidator(_seconds), WithJsonSchema({"type": "number", "minimum": 1, "maximum": MAX_SECONDS})
]
Time = Annotated[
    str,
    BeforeValidator(_time),
    WithJsonSchema({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "examples": ["09:00"]}),
]
Day = Annotated[str, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
MaxSessions = Annotated[
    int, whole(0, 1000), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 1000})
]
Name = Annotated[Text, WithJsonSchema({"type": "string", "pattern": _NAME, "examples": ["desk"]})]


# Assignment


class TakeSession(Input):
    """The session to take."""

    session_id: Uuid = Field(examples=[EXAMPLE_SESSION])
    from_staff_id: AnyText = Field(
        None,
        examples=["s2"],
        description="Take it from this colleague. Without it, the session must be nobody's.",
    )


class ReleaseSession(Input):
    """The session to return to the queue."""

    session_id: Uuid = Field(examples=[EXAMPLE_SESSION])


class TransferSession(Input):
    """The session to transfer, and to whom."""

    session_id: Uuid = Field(examples=[EXAMPLE_SESSION])
    to_staff_id: Text | None = Field(examples=["s2"], description="Null: back to the queue.")
    note: AnyText = Field(
        None,
        examples=["Asks for a refund of table 4."],
        description="A private note, stored with the transfer.",
    )
    note_id: AnyUuid = Field(
        None, description="Chosen by the client, once per note: makes it safe to send again."
    )
    from_staff_id: AnyText = Field(
        None,
        examples=["s1"],
        description="Who has the session as far as the caller knows (null: nobody): refused (`session_taken`) if a colleague has it by now. Without this field, anybody may have it.",
    )
    after_seq: AnySeq = Field(
        None,
        description="`seq` of the last message that the caller has seen: refused (`session_moved`) if a colleague has written since.",
    )


class OverLimit(Described):
    """The load of a staff member who has more sessions than automatic assignment would give."""

    open_sessions: int
    max_sessions: int


class SessionAssigned(SessionChanged):
    """The session after the change."""

    over_limit: OverLimit = absent(
        description="Present if the staff member now has more sessions than the limit."
    )


# Staff


class StaffSettings(Input):
    """Changes of a staff member's part in automatic assignment. A field that is absent stays as it is."""

    model_config = ConfigDict(extra="allow")

    takes_sessions: bool = Field(True, description="False: automatic assignment gives no session.")
    max_sessions: MaxSessions | None = Field(
        None,
        examples=[5],
        description="Open sessions at which automatic assignment stops; null: the desk's `max_sessions`.",
    )


class StaffMember(Described):
    """Somebody of the staff."""

    staff_id: str = Field(alias="staffId", examples=["s1"])
    display_name: str | None = Field(alias="displayName", examples=["Sam"])
    role: Literal["staff", "admin"]
    status: Literal["online", "away", "offline"]
    active: Literal[True]
    open_sessions: int = Field(alias="openSessions", description="Open sessions assigned to this person.")
    takes_sessions: bool = Field(alias="takesSessions")
    max_sessions: int | None = Field(alias="maxSessions", examples=[5])


class StaffList(Answer):
    """Active staff, by name."""

    staff: list[StaffMember]


class StaffChanged(Answer):
    """The staff member after the change."""

    staff: StaffMember


# Settings


class DeskSettings(Input):
    """Changes of the desk's settings. A field that is absent stays as it is. Times are in seconds."""

    model_config = ConfigDict(extra="allow")

    assignment: Literal["off", "round_robin", "least_busy"] = Field("off", examples=["round_robin"])
    max_sessions: MaxSessions | None = Field(None, examples=[5], description="From 1; null: no limit.")
    returning_within: Seconds | None = Field(
        None,
        examples=[86_400],
        description="A player who returns within this time goes to the same staff member; null: no preference.",
    )
    offline_after: Seconds = Field(
        120,
        description="After this time the waiting sessions of staff who are offline return to the queue.",
    )
    idle_warn_after: Seconds | None = None
    idle_close_after: Seconds | None = None
    first_reply_goal: Seconds | None = None
    reply_goal: Seconds | None = None
    goals_in_hours: bool = Field(True, description="Goals count open hours only.")
    hours: Text | None = Field(None, examples=["desk"], description="Opening hours; null: always open.")
    rating_enabled: bool = False


class Settings(Described):
    """The desk's settings. Times are in seconds; null: none."""

    assignment: Literal["off", "round_robin", "least_busy"]
    max_sessions: int | None
    returning_within: float | None
    offline_after: float
    idle_warn_after: float | None
    idle_close_after: float | None
    first_reply_goal: float | None
    reply_goal: float | None
    goals_in_hours: bool
    hours: str | None
    rating_enabled: bool


class SettingsRead(Answer):
    """All settings of the desk."""

    settings: Settings


# Opening hours


class WeekEntry(Input):
    """A weekly entry, in local time. Closing at or before opening: on the next day. No times: closed all day."""

    weekday: Annotated[int, whole(1, 7), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 7})] = (
        Field(description="1 is Monday.")
    )
    opens: Time | None = None
    closes: Time | None = None
    valid_from: Day | None = Field(
        None,
        description="First day of this version of the week; today by default. It lasts until the next version.",
    )


class DateEntry(Input):
    """An entry of a single day, which replaces the weekly ones. No times: closed all day."""

    day: Day
    label: AnyText = Field(None, examples=["Republic Day"])
    opens: Time | None = None
    closes: Time | None = None


class ReplaceHours(Input):
    """Opening hours. Entries of days that are over stay as they are."""

    timezone: Text = Field(examples=["Europe/Malta"], description="The name of an IANA time zone.")
    week: list[WeekEntry] = Field([], max_length=MAX_WEEK)
    dates: list[DateEntry] = Field([], max_length=MAX_DATES)
    name: Name | None = Field(None, description="The same as in the path, if given.")


class CreateHours(ReplaceHours):
    """Opening hours with their name."""

    name: Name = Field(examples=["desk"], description="Lower case letters, digits, - and _, at most 40.")


class HoursWeek(Described):
    """A weekly entry."""

    weekday: int = Field(ge=1, le=7, description="1 is Monday.")
    opens: str | None = Field(examples=["09:00"])
    closes: str | None = Field(examples=["18:00"])
    valid_from: date


class HoursDate(Described):
    """An entry of a single day."""

    day: date
    label: str | None
    opens: str | None
    closes: str | None


class Hours(Described):
    """Opening hours, in local times of their time zone."""

    name: str = Field(examples=["desk"])
    timezone: str = Field(examples=["Europe/Malta"])
    week: list[HoursWeek] = Field(description="By `valid_from`, `weekday` and `opens`.")
    dates: list[HoursDate] = Field(description="By day.")


class HoursList(Answer):
    """All opening hours, by name."""

    hours: list[Hours]


class HoursRead(Answer):
    """Opening hours as they are stored."""

    hours: Hours


class Deleted(Answer):
    """It was deleted."""
