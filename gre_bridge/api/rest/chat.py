"""Conversations over REST: send, read, page. The database decides which conversations a caller may use.

Old portals poll the messages every two seconds: an unchanged page is answered with 304.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from gre_bridge.api.auth import AUTHENTICATED, Authenticated, AuthenticatedCall
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.schemas.requests import History, PlayerId, ReadMark, SendMessage, Uuid
from gre_bridge.api.schemas.responses import ChatHistory, DeskRead, Marked, Me, Message, Sent, errors
from gre_bridge.api.times import iso_time
from gre_bridge.db.answers import HistoryPage, StoredMessage
from gre_bridge.db.answers import Message as StoredRow

router = APIRouter(tags=["Chat"], dependencies=AUTHENTICATED)

Player = Annotated[PlayerId, Path(examples=[29])]
SENT: dict[int | str, dict[str, Any]] = {
    200: {"model": Sent, "description": "It had been sent before, with this `id`"}
}


def sent(answer: StoredMessage) -> Response:
    """Answer for a message that was stored, now or before."""
    message = answer["message"]
    body = {
        "success": True,
        "messageId": message["id"],
        "sessionId": message["session_id"],
        "message": message,
        "data": message,
    }
    return JsonResponse(body, 200 if answer["duplicate"] else 201)


async def _send(body: SendMessage, call: AuthenticatedCall) -> Response:
    # An id generated here, where the client gave none, makes the retry after a lost answer safe. That retry's "duplicate"
    # does not concern the client.
    message_id = body.id or str(uuid.uuid4())
    answer = await call(
        lambda users, caller: users.send(
            caller,
            message=body.message,
            player_id=body.player_id,
            session_id=body.session_id,
            message_id=message_id,
            sender=body.sender or body.sender_type,
            player_name=body.player_name,
            after_seq=body.after_seq,
            template_id=body.template_id,
            attachment_ids=body.attachment_ids,
        )
    )
    return sent(answer if body.id else {**answer, "duplicate": False})


@router.post(
    "/api/gre-chat/send",
    summary="Send a message",
    status_code=201,
    response_model=Sent,
    responses={**SENT, **errors(404, 409, 413)},
)
async def send(body: SendMessage, call: Authenticated) -> Response:
    """Send as whom the token is: a player into its open session (opened if there is none), staff to the player or session named.

    With an `id` of the client's own it is safe to send again: a repeat answers 200 and announces nothing.
    """
    return await _send(body, call)


@router.post(
    "/api/unified-chat/send",
    summary="Send a message (the same)",
    status_code=201,
    response_model=Sent,
    responses={**SENT, **errors(404, 409, 413)},
)
async def unified_send(body: SendMessage, call: Authenticated) -> Response:
    """The same as `POST /api/gre-chat/send`, under the name and with the `senderType` of older portals."""
    return await _send(body, call)


@router.get(
    "/api/gre-chat/messages/{player_id}",
    summary="Read a player's messages",
    response_model=list[Message],
    responses={
        200: {
            "headers": {
                "X-Next-Before": {"description": "`before` of the page before", "schema": {"type": "string"}},
                "ETag": {"description": "For `If-None-Match`", "schema": {"type": "string"}},
            }
        },
        304: {"description": "Nothing changed since the `ETag` in `If-None-Match`"},
        **errors(404),
    },
)
async def messages(
    player_id: Player,
    query: Annotated[History, Query()],
    request: Request,
    call: Authenticated,
) -> Response:
    """Oldest first, the newest page unless `before` or `after_seq` says otherwise; of all the player's sessions or of one."""
    page = await _page(player_id, query, call)
    answer = JsonResponse(page["messages"])
    digest = hashlib.blake2b(bytes(answer.body), digest_size=12)
    digest.update((page["next"] or "").encode())
    etag = f'W/"{digest.hexdigest()}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, X-GRE-Act-As",
    }
    if page["next"]:
        headers["X-Next-Before"] = page["next"]
    given = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if given & {"*", etag.removeprefix("W/")}:
        return Response(status_code=304, headers=headers)
    answer.headers.update(headers)
    return answer


@router.get(
    "/api/chat-history/{player_id}",
    summary="Read a player's history with its sessions",
    response_model=ChatHistory,
    responses=errors(404),
)
async def chat_history(
    player_id: Player, query: Annotated[History, Query()], call: Authenticated
) -> Response:
    """One page of messages, oldest first, and again by session."""
    page = await _page(player_id, query, call, sessions=True)
    found: dict[str, list[StoredRow]] = {}
    for message in page["messages"]:
        found.setdefault(message["session_id"], []).append(message)
    conversations = [
        {**session, "chat_messages": found.get(session["id"], [])} for session in page["sessions"] or ()
    ]
    return JsonResponse(
        {
            "success": True,
            "messages": page["messages"],
            "conversations": conversations,
            "next": page["next"],
        }
    )


@router.post(
    "/api/gre-chat/read/{session_id}",
    summary="Mark messages as read",
    response_model=Marked,
    responses=errors(404, 413),
)
async def mark_read(session_id: Annotated[Uuid, Path()], body: ReadMark, call: Authenticated) -> Response:
    """The caller's side has read the other side's messages up to a seq. Marks never go back, so it is safe to send again."""
    mark = await call(
        lambda users, caller: users.mark_read(caller, session_id=session_id, up_to_seq=body.up_to_seq)
    )
    return JsonResponse(
        {
            "success": True,
            "sessionId": mark["session_id"],
            "by": mark["by"],
            "upToSeq": mark["up_to_seq"],
            "timestamp": mark["timestamp"],
            "changed": mark["changed"],
        }
    )


@router.get("/api/gre-chat/me", summary="Who am I", response_model=Me, responses=errors())
async def me(call: Authenticated) -> Response:
    """Whom the database takes the caller for, and whether the caller's chat is on."""
    who = await call(lambda users, caller: users.whoami(caller, required=True))
    return JsonResponse(
        {
            "success": True,
            "role": who.role,
            "playerId": who.player_id,
            "staffId": who.staff_id,
            "displayName": who.display_name,
            "chatEnabled": who.chat_enabled,
            "expiresAt": iso_time(who.expires_at),
            **({"ratingEnabled": True} if who.rating_enabled else {}),
        }
    )


@router.get(
    "/api/gre-chat/desk",
    summary="Is the desk open, and who is there",
    response_model=DeskRead,
    responses=errors(),
)
async def desk(call: Authenticated) -> Response:
    """Whether the desk is open, when that changes, and who of the staff is online or away. Ask again when it changes."""
    found = await call(lambda users, caller: users.desk(caller))
    return JsonResponse(
        {
            "success": True,
            "open": found["open"],
            "opensAt": found["opens_at"],
            "closesAt": found["closes_at"],
            "timezone": found["timezone"],
            "now": found["now"],
            "staff": [
                {"staffId": row["staff_id"], "displayName": row["display_name"], "status": row["status"]}
                for row in found["staff"]
            ],
        }
    )


async def _page(
    player_id: int, query: History, call: AuthenticatedCall, *, sessions: bool = False
) -> HistoryPage:
    return await call(
        lambda users, caller: users.history(
            caller,
            player_id=player_id,
            session_id=query.session_id,
            before=query.before,
            after_seq=query.after_seq,
            limit=query.limit,
            sessions=sessions,
        )
    )
