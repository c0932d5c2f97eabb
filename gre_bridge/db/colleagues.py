"""Calls with which staff work beside each other: private notes, blocks of players, search."""

from __future__ import annotations

from gre_bridge.db.callers import CallerDatabase
from gre_bridge.db.desk_answers import NotePage, PlayerState, SearchPage, StoredNote
from gre_bridge.db.postgrest import Caller


class ColleagueDatabase(CallerDatabase):
    """Every method may raise Refused or TransientError."""

    async def notes(self, caller: Caller, session_id: str, *, after_n: int | None = None) -> NotePage:
        """Read a session's notes after a note: {"notes": [N, …], "has_more"}."""
        arguments = {"p_session_id": session_id, "p_after_n": after_n}
        return await self._read(NotePage, "gre_list_notes", arguments, caller)

    async def add_note(self, caller: Caller, *, session_id: str, text: str, note_id: str) -> StoredNote:
        """Add a note: {"note": N, "duplicate": bool}. Safe to repeat with the same id."""
        arguments = {"p_session_id": session_id, "p_text": text, "p_id": note_id}
        answer = await self._write(StoredNote, "gre_add_note", arguments, caller)
        self._observer.session_written(session_id)
        return answer

    async def block_player(
        self, caller: Caller, player_id: int, *, until: str | None, reason: str | None
    ) -> PlayerState:
        """Disable a player's chat until a time (ISO 8601), or until it is enabled again."""
        arguments = {"p_player_id": player_id, "p_until": until, "p_reason": reason}
        return await self._write(PlayerState, "gre_block_player", arguments, caller)

    async def unblock_player(self, caller: Caller, player_id: int) -> PlayerState:
        """Enable a player's chat."""
        return await self._write(PlayerState, "gre_unblock_player", {"p_player_id": player_id}, caller)

    async def search(
        self,
        caller: Caller,
        query: str,
        *,
        since: str | None = None,
        until: str | None = None,
        staff: str | None = None,
        player: int | None = None,
        cursor: str | None = None,
    ) -> SearchPage:
        """Search messages, newest first: {"messages": [M with "session"], "next": cursor | None}. Times are ISO 8601."""
        arguments = {
            "p_query": query, "p_from": since, "p_to": until, "p_staff": staff, "p_player": player, "p_cursor": cursor,
        }  # fmt: skip
        return await self._read(SearchPage, "gre_search_messages", arguments, caller)
