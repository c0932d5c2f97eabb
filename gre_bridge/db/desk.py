"""The calls with which a desk works: the queue, the story, assignment, staff, settings, opening hours, operations.

A part of `db.users`, with the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gre_bridge.db.answers import DeadLetterPage, QueuePage, StaffMember
from gre_bridge.db.callers import CallerDatabase
from gre_bridge.db.desk_answers import (
    AssignedSession,
    DeskSettings,
    DeskState,
    Hours,
    PlayerState,
    SessionEventPage,
)
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.types import Json


class DeskDatabase(CallerDatabase):
    """The functions for the desk, typed; for staff and admins, but for `desk`. Every method may raise Refused or TransientError."""

    async def queue(
        self,
        caller: Caller,
        *,
        status: str | None = None,
        assigned: str | None = None,
        player: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> QueuePage:
        """List sessions in the order of work: {"sessions": [S with "waiting_since", …], "next": cursor | None}."""
        arguments = {
            "p_status": status, "p_assigned": assigned, "p_player": player, "p_limit": limit, "p_cursor": cursor,
        }  # fmt: skip
        return await self._read(QueuePage, "gre_session_queue", arguments, caller)

    async def session_events(
        self, caller: Caller, session_id: str, *, after_rev: int | None = None
    ) -> SessionEventPage:
        """Read a session's story after an event: {"events": […], "has_more"}."""
        arguments = {"p_session_id": session_id, "p_after_rev": after_rev}
        return await self._read(SessionEventPage, "gre_session_events", arguments, caller)

    async def staff(self, caller: Caller) -> list[StaffMember]:
        """List active staff: [{"staff_id", "display_name", "role", "status", "open_sessions", …}, …]."""
        return await self._read_list(StaffMember, "gre_list_staff", {}, caller)

    async def set_staff(self, caller: Caller, staff_id: str, changes: Json) -> StaffMember:
        """Change a staff member's `takes_sessions` and `max_sessions`."""
        arguments = {"p_staff_id": staff_id, "p_settings": changes}
        return await self._write(StaffMember, "gre_set_staff", arguments, caller)

    async def player(self, caller: Caller, player_id: int) -> PlayerState:
        """Read what is known of a player: {"player_id", "display_name", "enabled"}."""
        return await self._read(PlayerState, "gre_get_player", {"p_player_id": player_id}, caller)

    async def take_session(
        self, caller: Caller, session_id: str, *, from_staff: str | None = None
    ) -> AssignedSession:
        """Assign a session to the caller, if it is nobody's or `from_staff`'s: {"session": S, "over_limit"?}."""
        arguments = {"p_session_id": session_id, "p_from_staff": from_staff}
        return await self._assign("gre_take_session", arguments, caller)

    async def release_session(self, caller: Caller, session_id: str) -> AssignedSession:
        """Return a session to the queue."""
        return await self._assign("gre_release_session", {"p_session_id": session_id}, caller)

    async def transfer_session(
        self,
        caller: Caller,
        session_id: str,
        *,
        to_staff: str | None,
        note: str | None = None,
        after_seq: int | None = None,
        from_staff: str | None = None,
        note_id: str | None = None,
    ) -> AssignedSession:
        """Assign a session to somebody else (None: nobody), with a note.

        `from_staff` is the person who has it as far as the caller knows (empty: nobody; None: not compared). A call with
        a note is safe to repeat only with `note_id`.
        """
        arguments = {
            "p_session_id": session_id, "p_to_staff": to_staff, "p_note": note, "p_after_seq": after_seq,
            "p_from_staff": from_staff, "p_note_id": note_id,
        }  # fmt: skip
        return await self._assign("gre_transfer_session", arguments, caller)

    async def _assign(self, function: str, arguments: Json, caller: Caller) -> AssignedSession:
        answer = await self._write(AssignedSession, function, arguments, caller)
        self._observer.session_written(answer["session"]["id"])
        return answer

    async def desk(self, caller: Caller) -> DeskState:
        """Read whether the desk is open, when that changes, and who is there; for players too."""
        return await self._read(DeskState, "gre_get_desk", {}, caller)

    async def settings(self, caller: Caller) -> DeskSettings:
        """Read the settings of the desk."""
        return await self._read(DeskSettings, "gre_get_settings", {}, caller)

    async def set_settings(self, caller: Caller, changes: Json) -> DeskSettings:
        """Change some settings of the desk; returns all of them."""
        return await self._write(DeskSettings, "gre_set_settings", {"p_settings": changes}, caller)

    async def hours(self, caller: Caller) -> list[Hours]:
        """List the opening hours."""
        return await self._read_list(Hours, "gre_list_hours", {}, caller)

    async def hours_named(self, caller: Caller, name: str) -> Hours:
        """Read opening hours."""
        return await self._read(Hours, "gre_get_hours", {"p_name": name}, caller)

    async def set_hours(self, caller: Caller, name: str, entries: Json, *, new: bool) -> Hours:
        """Create (`new`) or replace opening hours; `entries` are {"timezone", "week", "dates"}."""
        arguments = {"p_name": name, **{f"p_{key}": value for key, value in entries.items()}, "p_new": new}
        return await self._write(Hours, "gre_set_hours", arguments, caller)

    async def delete_hours(self, caller: Caller, name: str) -> None:
        """Delete opening hours."""
        await self._write(Hours, "gre_delete_hours", {"p_name": name}, caller)

    async def operations(self, caller: Caller) -> Json:
        """Read how the relay does: backlog, sinks, workers, events per minute (`gre_operations`)."""
        return await self._read(dict[str, Any], "gre_operations", {}, caller)

    async def dead(
        self, caller: Caller, *, sink: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """List dead letters, the latest first: {"dead": […], "next": cursor | None}. They hold ids, never text."""
        arguments = {"p_sink": sink, "p_limit": limit, "p_cursor": cursor}
        return await self._read(DeadLetterPage, "gre_dead_letters", arguments, caller)

    async def retry_dead(self, caller: Caller, ids: Sequence[str]) -> int:
        """Send dead letters again; returns how many of them were dead."""
        return await self._count("gre_retry_dead", {"p_ids": list(ids)}, caller)
