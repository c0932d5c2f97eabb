"""The endpoints with which staff work beside each other: private notes, blocks of players, search. The database decides who is staff."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.rest.chat import Player
from gre_bridge.api.rest.staff import player_known
from gre_bridge.api.schemas.colleagues import AddNote, BlockPlayer, Found, NoteList, Notes, NoteStored, Search
from gre_bridge.api.schemas.requests import Uuid
from gre_bridge.api.schemas.responses import PlayerKnown, errors

router = APIRouter(tags=["Staff"], dependencies=STAFF_PATHS)


@router.get(
    "/api/gre-admin/notes/{session_id}",
    summary="Read the notes of a session",
    response_model=Notes,
    responses=errors(404),
)
async def notes(
    session_id: Annotated[Uuid, Path()], query: Annotated[NoteList, Query()], call: Authenticated
) -> Response:
    """Staff's private notes in order, each with its place between the messages. No player receives them."""
    page = await call(lambda users, caller: users.notes(caller, session_id, after_n=query.after_n))
    return JsonResponse({"success": True, "notes": page["notes"], "has_more": page["has_more"]})


@router.post(
    "/api/gre-admin/notes",
    summary="Add a note",
    status_code=201,
    response_model=NoteStored,
    responses={
        200: {"model": NoteStored, "description": "It had been added before, with this `id`"},
        **errors(404, 409, 413),
    },
)
async def add_note(body: AddNote, call: Authenticated) -> Response:
    """Add a private note to a session, open or closed. With an `id` of the client's own it is safe to send again."""
    note_id = body.id or str(uuid.uuid4())
    answer = await call(
        lambda users, caller: users.add_note(
            caller, session_id=body.session_id, text=body.text, note_id=note_id
        )
    )
    duplicate = answer["duplicate"] and body.id is not None
    return JsonResponse({"success": True, "note": answer["note"]}, 200 if duplicate else 201)


@router.put(
    "/api/gre-admin/player/{player_id}/block",
    summary="Block a player",
    response_model=PlayerKnown,
    responses=errors(413),
)
async def block_player(player_id: Player, call: Authenticated, body: BlockPlayer | None = None) -> Response:
    """Disable a player's chat, until a time or until it is enabled again. Staff see the reason, the player does not."""
    given = body or BlockPlayer()
    until = given.until.isoformat() if given.until else None
    return player_known(
        await call(
            lambda users, caller: users.block_player(caller, player_id, until=until, reason=given.reason)
        )
    )


@router.delete(
    "/api/gre-admin/player/{player_id}/block",
    summary="Unblock a player",
    response_model=PlayerKnown,
    responses=errors(413),
)
async def unblock_player(player_id: Player, call: Authenticated) -> Response:
    """Enable a player's chat. Safe to send again."""
    return player_known(await call(lambda users, caller: users.unblock_player(caller, player_id)))


@router.get(
    "/api/gre-admin/search",
    summary="Search messages",
    response_model=Found,
    responses=errors(),
)
async def search(query: Annotated[Search, Query()], call: Authenticated) -> Response:
    """Newest first, in all sessions. The text may be anywhere in a word where the database has the extension pg_trgm."""
    page = await call(
        lambda users, caller: users.search(
            caller,
            query.q,
            since=query.since.isoformat() if query.since else None,
            until=query.until.isoformat() if query.until else None,
            staff=query.staff,
            player=query.player,
            cursor=query.cursor,
        )
    )
    return JsonResponse({"success": True, "messages": page["messages"], "next": page["next"]})
