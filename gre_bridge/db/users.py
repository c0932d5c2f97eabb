"""Calls to the database for callers of the API, each with the caller's own token, and the hub's reads.

PostgREST verifies the token, and the SQL functions decide who may do what. Only the package `gre_bridge.db` names
functions and tables; the worker's calls are in `db.relay`, the operator's in `db.operations`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gre_bridge.db.answers import (
    Actor,
    CatchUp,
    ChangedSession,
    ClosedSession,
    Entry,
    HistoryPage,
    HubChanges,
    Known,
    OnlineStaff,
    PlayerEnabled,
    Presence,
    ReadMark,
    SessionPage,
    StoredMessage,
)
from gre_bridge.db.callers import Identity
from gre_bridge.db.colleagues import ColleagueDatabase
from gre_bridge.db.desk import DeskDatabase
from gre_bridge.db.files import FileDatabase
from gre_bridge.db.postgrest import Caller, unreadable
from gre_bridge.db.replies import RepliesDatabase
from gre_bridge.db.reports import ReportDatabase
from gre_bridge.polling import Listening


class UserDatabase(DeskDatabase, ColleagueDatabase, RepliesDatabase, FileDatabase, ReportDatabase):
    """The functions that portals may call, typed. Every method may raise Refused or TransientError."""

    async def whoami(self, caller: Caller, *, required: bool = False) -> Identity:
        """Return the identity of the caller; raise Refused (401) for a token that the database does not accept.

        `required`: also raise Refused for a caller that is nobody in the chat, as any other call would.
        """
        return _identity(await self._read(Actor, "gre_whoami", {"p_required": required or None}, caller))

    async def enter(self, caller: Caller, since: Mapping[str, int] | None) -> tuple[Identity, CatchUp | None]:
        """Return what `whoami` and `catch_up` return, by one call; None for who is nobody, or may not chat."""
        found = await self._read(Entry, "gre_enter", {"p_since": since}, caller)
        return _identity(found["actor"]), found["missed"]

    async def send(
        self,
        caller: Caller,
        *,
        message: str,
        player_id: int | None = None,
        session_id: str | None = None,
        message_id: str | None = None,
        sender: str | None = None,
        player_name: str | None = None,
        after_seq: int | None = None,
        template_id: str | None = None,
        attachment_ids: Sequence[str] | None = None,
    ) -> StoredMessage:
        """Send a message: {"message": M, "duplicate": bool}. Safe to repeat with a `message_id`.

        `after_seq`: refuse staff's message (409 `session_moved`) if another staff member has written after it.
        `attachment_ids`: files that it has, whose bytes are stored.
        """
        answer = await self._write(
            StoredMessage,
            "gre_send_message",
            {
                "p_message": message,
                "p_player_id": player_id,
                "p_session_id": session_id,
                "p_id": message_id,
                "p_sender": sender,
                "p_player_name": player_name,
                "p_after_seq": after_seq,
                "p_template_id": template_id,
                "p_attachment_ids": list(attachment_ids) if attachment_ids else None,
            },
            caller,
        )
        self._observer.session_written(answer["message"]["session_id"])
        return answer

    async def reply(
        self,
        caller: Caller,
        *,
        message: str,
        session_id: str | None = None,
        player_id: int | None = None,
        message_id: str | None = None,
        after_seq: int | None = None,
        template_id: str | None = None,
        attachment_ids: Sequence[str] | None = None,
    ) -> StoredMessage:
        """Send staff's answer, as `send`."""
        answer = await self._write(
            StoredMessage,
            "gre_staff_reply",
            {
                "p_message": message,
                "p_session_id": session_id,
                "p_player_id": player_id,
                "p_id": message_id,
                "p_after_seq": after_seq,
                "p_template_id": template_id,
                "p_attachment_ids": list(attachment_ids) if attachment_ids else None,
            },
            caller,
        )
        self._observer.session_written(answer["message"]["session_id"])
        return answer

    async def history(
        self,
        caller: Caller,
        *,
        player_id: int | None = None,
        session_id: str | None = None,
        before: str | None = None,
        before_seq: int | None = None,
        after_seq: int | None = None,
        limit: int = 200,
        sessions: bool = False,
    ) -> HistoryPage:
        """Read one page: {"messages": [M, …] ascending, "next", "has_more", "session", "sessions"}."""
        return await self._read(
            HistoryPage,
            "gre_chat_history",
            {
                "p_player_id": player_id,
                "p_session_id": session_id,
                "p_before": before,
                "p_before_seq": before_seq,
                "p_after_seq": after_seq,
                "p_limit": limit,
                "p_sessions": sessions,
            },
            caller,
        )

    async def sessions(
        self,
        caller: Caller,
        *,
        status: str | None = None,
        assigned: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """List sessions, latest activity first: {"sessions": [S, …], "next": cursor | None}."""
        return await self._read(
            SessionPage,
            "gre_list_sessions",
            {"p_status": status, "p_assigned": assigned, "p_limit": limit, "p_cursor": cursor},
            caller,
        )

    async def catch_up(self, caller: Caller, since: Mapping[str, int] | None) -> CatchUp:
        """Read from where on a reader missed something since these seqs, and the sessions that it should know.

        {"sessions": [S, …], "positions": {session id: seq}}, see `gre_catch_up`; the messages are read with `news`.
        """
        return await self._read(CatchUp, "gre_catch_up", {"p_since": since, "p_total": 0}, caller)

    async def mark_read(self, caller: Caller, *, session_id: str, up_to_seq: int) -> ReadMark:
        """Mark as read: {"session_id", "by", "up_to_seq", "timestamp", "changed"}."""
        answer = await self._write(
            ReadMark, "gre_mark_read", {"p_session_id": session_id, "p_up_to_seq": up_to_seq}, caller
        )
        self._observer.session_written(session_id)
        return answer

    async def set_session_status(
        self, caller: Caller, *, session_id: str, status: str, staff_id: str | None = None
    ) -> ChangedSession:
        """Set active, assigned or closed: {"session": S}."""
        answer = await self._write(
            ChangedSession,
            "gre_set_session_status",
            {"p_session_id": session_id, "p_status": status, "p_staff_id": staff_id},
            caller,
        )
        self._observer.session_written(session_id)
        return answer

    async def close_session(self, caller: Caller, player_id: int) -> ClosedSession:
        """Close the player's open session: {"session": S | None}."""
        answer = await self._write(ClosedSession, "gre_close_session", {"p_player_id": player_id}, caller)
        if answer["session"] is not None:
            self._observer.session_written(answer["session"]["id"])
        return answer

    async def enable_player(self, caller: Caller, player_id: int, *, enabled: bool) -> PlayerEnabled:
        """Turn a player's chat on or off: {"player_id", "enabled"}."""
        return await self._write(
            PlayerEnabled, "gre_enable_player", {"p_player_id": player_id, "p_enabled": enabled}, caller
        )

    async def enable_all_players(self, caller: Caller) -> int:
        """Turn every player's chat on; returns how many were off."""
        return await self._count("gre_enable_all_players", {}, caller)

    async def set_online_status(
        self, caller: Caller, status: str, *, expires_in: float | None = None
    ) -> OnlineStaff:
        """Set the caller's presence, for `expires_in` seconds: {"staff_id", "display_name", "status"}."""
        return await self._write(
            OnlineStaff, "gre_set_online_status", {"p_status": status, "p_expires_in": expires_in}, caller
        )

    # The hub's own reading, with the service key.

    async def news(
        self,
        *,
        known: Mapping[str, Known],
        sessions: Sequence[str] = (),
        since: str | None = None,
        epoch: str | None = None,
        players: Sequence[int] | None = None,
        limit: int = 200,
        size: int = 1_000_000,
    ) -> HubChanges:
        """Read what is newer than `known` (by session id), see `gre_hub_changes_v1`.

        Of the `sessions` named and of those changed `since` (a time that an earlier answer gave as "now");
        limited to the sessions of `players` unless None. A session not `known` is read from `epoch` on.
        Of one session at most `limit` messages come, in all about `size` bytes.
        """
        return await self._read(
            HubChanges,
            "gre_hub_changes_v1",
            {
                "p_positions": known,
                "p_sessions": list(sessions),
                "p_since": since,
                "p_epoch": epoch,
                "p_players": None if players is None else list(players),
                "p_limit": limit,
                "p_bytes": size,
            },
            None,
        )

    async def listen(
        self, listener: str, polls_for: float | None, snapshot: str | None = None, *, idle: bool = False
    ) -> Listening:
        """Register this process as a listener that needs no wake-up for `polls_for` seconds (None: no change), or none (`idle`).

        With the `snapshot` of an earlier answer: which sessions have changed since.
        """
        kind = "idle" if idle else "hub"
        answer = await self._read(
            dict[str, Any],
            "gre_relay_listen_v1",
            {"p_listener": listener, "p_kind": kind, "p_polls_for": polls_for, "p_snapshot": snapshot},
            None,
        )
        try:
            changed = answer["sessions"]
            return Listening(
                int(answer["listeners"]),
                int(answer["hubs"]),
                bool(answer["broadcasts"]),
                answer["snapshot"],
                None if changed is None or snapshot is None else frozenset(map(str, changed)),
            )
        except (KeyError, TypeError, ValueError):
            raise unreadable("gre_relay_listen_v1") from None

    async def unlisten(self, listener: str) -> None:
        """Remove this process from the listeners."""
        await self._call(self._rest.rpc, "gre_relay_unlisten_v1", {"p_listener": listener}, None)

    async def presence(
        self, *, online: Sequence[str], here: Iterable[Identity], expires_in: float
    ) -> Presence:
        """Refresh the presence of the staff `online` here, and ask which of the people `here` lost their rights.

        {"online": […], "disabled": [player ids whose chat is off], "revoked": [claims that are no longer valid]}.
        """
        claims = {tuple(who.claim.values()): who.claim for who in here}
        return await self._read(
            Presence,
            "gre_hub_presence_v1",
            {
                "p_staff": list(online),
                "p_players": sorted({claim["player_id"] for claim in claims.values() if claim["player_id"]}),
                "p_expires_in": expires_in,
                "p_identities": list(claims.values()),
            },
            None,
        )


def _identity(found: Actor) -> Identity:
    expires = found["expires_at"]
    return Identity(
        role=found["role"],
        player_id=found["player_id"],
        staff_id=found["staff_id"],
        display_name=found["display_name"],
        chat_enabled=found["chat_enabled"] is not False,
        expires_at=float(expires) if expires is not None and math.isfinite(expires) else None,
        user_id=found["user_id"],
        rating_enabled=found.get("rating_enabled", False),
    )
