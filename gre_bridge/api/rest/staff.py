"""The staff's endpoints: sessions, replies, the right to chat. The database decides who is staff."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.rest.chat import SENT, Player, sent
from gre_bridge.api.schemas.requests import (
    EnablePlayer,
    SendReply,
    SessionHistory,
    SessionList,
    SessionStatus,
    SessionStory,
    Uuid,
)
from gre_bridge.api.schemas.responses import (
    AllEnabled,
    PlayerEnabled,
    PlayerKnown,
    Sent,
    SessionChanged,
    SessionClosed,
    SessionMessages,
    Sessions,
    errors,
)
from gre_bridge.api.schemas.story import SessionEvents
from gre_bridge.db.desk_answers import PlayerState
from gre_bridge.db.types import Json

router = APIRouter(tags=["Staff"], dependencies=STAFF_PATHS)

SessionId = Annotated[Uuid, Path()]


def player_known(found: PlayerState) -> Response:
    """Answer with what is known of a player."""
    player: Json = {
        "playerId": found["player_id"],
        "displayName": found["display_name"],
        "enabled": found["enabled"],
    }
    if "block" in found:
        player["block"] = found["block"]
    return JsonResponse({"success": True, "player": player})


@router.post(
    "/api/gre-admin/reply",
    summary="Reply to a player",
    status_code=201,
    response_model=Sent,
    responses={**SENT, **errors(404, 409, 413)},
)
async def reply(body: SendReply, call: Authenticated) -> Response:
    """Send staff's answer to a session, or to a player's open one (opened if there is none)."""
    message_id = body.id or str(uuid.uuid4())
    answer = await call(
        lambda users, caller: users.reply(
            caller,
            message=body.message,
            session_id=body.session_id,
            player_id=body.player_id,
            message_id=message_id,
            after_seq=body.after_seq,
            template_id=body.template_id,
            attachment_ids=body.attachment_ids,
        )
    )
    return sent(answer if body.id else {**answer, "duplicate": False})


@router.get("/api/gre-admin/sessions", summary="List sessions", response_model=Sessions, responses=errors())
async def sessions(query: Annotated[SessionList, Query()], call: Authenticated) -> Response:
    """Latest activity first."""
    page = await call(
        lambda users, caller: users.sessions(
            caller,
            status=query.status,
            assigned=query.assigned,
            limit=query.limit,
            cursor=query.cursor,
        )
    )
    return JsonResponse({"success": True, "sessions": page["sessions"], "next": page["next"]})


@router.get(
    "/api/gre-admin/player/{player_id}",
    summary="Whether a player may chat, and why not",
    response_model=PlayerKnown,
    responses=errors(),
)
async def player(player_id: Player, call: Authenticated) -> Response:
    """A player that is not known may."""
    return player_known(await call(lambda users, caller: users.player(caller, player_id)))


@router.get(
    "/api/gre-admin/messages/{session_id}",
    summary="Read a session",
    response_model=SessionMessages,
    responses=errors(404),
)
async def session_messages(
    session_id: SessionId,
    query: Annotated[SessionHistory, Query()],
    call: Authenticated,
) -> Response:
    """Oldest first: the newest page, the one before `before_seq`, or what came after `after_seq`."""
    page = await call(
        lambda users, caller: users.history(
            caller,
            session_id=session_id,
            before_seq=query.before_seq,
            after_seq=query.after_seq,
            limit=query.limit,
        )
    )
    return JsonResponse(
        {
            "success": True,
            "session": page["session"],
            "messages": page["messages"],
            "has_more": page["has_more"],
        }
    )


@router.get(
    "/api/gre-admin/events/{session_id}",
    summary="Read the story of a session",
    response_model=SessionEvents,
    responses=errors(404),
)
async def session_events(
    session_id: SessionId, query: Annotated[SessionStory, Query()], call: Authenticated
) -> Response:
    """Its events (opened, assigned, closed …) in order, each with its place between the messages."""
    page = await call(
        lambda users, caller: users.session_events(caller, session_id, after_rev=query.after_rev)
    )
    return JsonResponse({"success": True, "events": page["events"], "has_more": page["has_more"]})


@router.put(
    "/api/gre-admin/session/{session_id}/status",
    summary="Assign, reopen or close a session",
    response_model=SessionChanged,
    responses=errors(404, 409, 413),
)
async def set_status(session_id: SessionId, body: SessionStatus, call: Authenticated) -> Response:
    """`assigned` is to the caller unless `staffId` says to whom; `active` is to nobody, and reopens; `closed`.

    The stored status of an assigned session stays `active`.
    """
    changed = await call(
        lambda users, caller: users.set_session_status(
            caller, session_id=session_id, status=body.status, staff_id=body.staff_id
        )
    )
    return JsonResponse({"success": True, "session": changed["session"]})


@router.post(
    "/api/gre-chat/close-session/{player_id}",
    summary="Close a player's session",
    response_model=SessionClosed,
    responses=errors(413),
)
async def close_session(player_id: Player, call: Authenticated) -> Response:
    """Close the open one, if there is one; the player's next message opens another."""
    # Not retried: the second answer would contain no session.
    closed = await call(lambda users, caller: users.close_session(caller, player_id), repeat=False)
    return JsonResponse({"success": True, "message": "Chat session closed", "session": closed["session"]})


@router.post(
    "/api/gre-chat/enable-player/{player_id}",
    summary="Turn a player's chat on or off",
    response_model=PlayerEnabled,
    responses=errors(413),
)
async def enable_player(player_id: Player, call: Authenticated, body: EnablePlayer | None = None) -> Response:
    """A player whose chat is off gets 403 `chat_disabled`, on every interface."""
    enabled = body.enabled if body else True
    done = await call(lambda users, caller: users.enable_player(caller, player_id, enabled=enabled))
    return JsonResponse({"success": True, "playerId": done["player_id"], "enabled": done["enabled"]})


@router.post(
    "/api/gre-chat/enable-all-players",
    summary="Turn every player's chat on",
    response_model=AllEnabled,
    responses=errors(413),
)
async def enable_all_players(call: Authenticated) -> Response:
    """Answers how many had been off."""
    count = await call(lambda users, caller: users.enable_all_players(caller), repeat=False)
    return JsonResponse({"success": True, "count": count})
