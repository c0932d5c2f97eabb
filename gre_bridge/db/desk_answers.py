"""The JSON that the database's functions for the staff's desk answer, as typed dictionaries.

Conventions as in `answers`, which has messages, sessions, events and notes.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from gre_bridge.db.answers import (
    ChangedSession,
    Message,
    Note,
    OnlineStaff,
    PlayerEnabled,
    Session,
    SessionEvent,
)


class DeskState(TypedDict):
    """Answer of `gre_get_desk`; `staff` are those who are online or away."""

    open: bool
    opens_at: str | None
    closes_at: str | None
    timezone: str | None
    now: str
    staff: list[OnlineStaff]


class FoundMessage(Message):
    """A message as `gre_search_messages` lists it."""

    session: Session


class SearchPage(TypedDict):
    """Answer of `gre_search_messages`; `next` is a cursor."""

    messages: list[FoundMessage]
    next: str | None


class SessionEventPage(TypedDict):
    """Answer of `gre_session_events`: in the order of `rev`."""

    events: list[SessionEvent]
    has_more: bool


class NotePage(TypedDict):
    """Answer of `gre_list_notes`: in the order of `n`."""

    notes: list[Note]
    has_more: bool


class StoredNote(TypedDict):
    """Answer of `gre_add_note`."""

    note: Note
    duplicate: bool


class Block(TypedDict):
    """Why a player's chat is disabled, by whom and since when, and when that ends by itself."""

    until: str | None
    reason: str | None
    by: str | None
    at: str


class Blocked(TypedDict, total=False):
    """Present in the state of a player whose chat is disabled."""

    block: Block


class PlayerState(PlayerEnabled, Blocked):
    """Answer of `gre_get_player`, `gre_block_player` and `gre_unblock_player`."""

    display_name: str | None


class AssignedSession(ChangedSession, total=False):
    """Answer of `gre_take_session`, `gre_release_session` and `gre_transfer_session`."""

    over_limit: dict[Literal["open_sessions", "max_sessions"], int]
    """Present if the staff member has more open sessions than automatic assignment gives."""


class DeskSettings(TypedDict):
    """Answer of `gre_get_settings` and `gre_set_settings`; times are in seconds."""

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


class WeekEntry(TypedDict):
    """A weekly entry of opening hours: local times as HH:MM, null for a day without an entry."""

    weekday: int
    opens: str | None
    closes: str | None
    valid_from: str


class DateEntry(TypedDict):
    """An entry of a single day of opening hours."""

    day: str
    label: str | None
    opens: str | None
    closes: str | None


class Hours(TypedDict):
    """One entry of `gre_list_hours`; answer of `gre_get_hours` and `gre_set_hours`."""

    name: str
    timezone: str
    week: list[WeekEntry]
    dates: list[DateEntry]


class Template(TypedDict):
    """A text that staff send often; `staff_id` is null for everybody's."""

    id: str
    shortcut: str
    title: str
    texts: dict[str, str]
    staff_id: str | None
    uses: int
    active: bool


class Rendered(TypedDict):
    """Answer of `gre_render_template`: `missing` are the names of placeholders that are left in `text`."""

    text: str
    missing: list[str]


class AutoReply(TypedDict):
    """A rule for a message that the server writes by itself (`gre_auto_replies`); `wait` is in seconds."""

    id: str
    name: str
    occasion: str
    wait: float | None
    once: Literal["cycle", "day", "question"]
    hours: str | None
    texts: dict[str, str]
    priority: int
    push: bool
    active: bool
    valid_from: str | None
    valid_to: str | None


class AutoReplyNow(Rendered):
    """The auto-reply that a new session's first message would get at this moment."""

    id: str


class AutoReplyList(TypedDict):
    """Answer of `gre_list_auto_replies`."""

    auto_replies: list[AutoReply]
    now: AutoReplyNow | None
