"""For those who run it, over REST: how the relay does, and its dead letters. What is shown holds no text and no key.

The database lets only staff see the figures, and only admins the dead letters.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.schemas.requests import DeadList, RetryDead
from gre_bridge.api.schemas.responses import DeadLetters, Operations, Retried, errors
from gre_bridge.db.types import Json

_IDS = {"session_id": "sessionId", "message_id": "messageId"}
_WORSE = {None: 0, "closed": 1, "half_open": 2, "open": 3}

router = APIRouter(tags=["Operations"], dependencies=STAFF_PATHS)


@router.get(
    "/api/gre-admin/operations",
    summary="How the relay does",
    response_model=Operations,
    responses=errors(),
)
async def operations(request: Request, call: Authenticated) -> Response:
    """What waits for which sink and why, who relays, and how much was delivered in each minute of the last hour."""
    found = await call(lambda portal, caller: portal.operations(caller))
    here: Json = await request.app.state.overview()
    # What the database has is what daemons said last, so this one's own may be newer: the worse of the two.
    own = {row["sink"]: row for row in here.get("sinks") or ()}
    sinks: list[Json] = []
    for sink in found["sinks"]:
        said = {"breaker": sink.pop("breaker"), "error": sink.pop("last_error")}
        said = max(said, own.get(sink["name"], said), key=lambda one: _WORSE.get(one["breaker"], 9))
        error = {"last_error": said["error"]} if said["error"] else {}
        sinks.append({**sink, "breaker": said["breaker"] and said["breaker"].replace("_", "-"), **error})
    feed = (here.get("realtime") or {}).get("state")
    return JsonResponse({"success": True, **found, "sinks": sinks, "feed": feed})


@router.get(
    "/api/gre-admin/dead", summary="List dead letters", response_model=DeadLetters, responses=errors()
)
async def dead(query: Annotated[DeadList, Query()], call: Authenticated) -> Response:
    """Events that a sink has refused for good, the latest first. Admins only; ids, never text."""
    page = await call(
        lambda portal, caller: portal.dead(caller, sink=query.sink, limit=query.limit, cursor=query.cursor)
    )
    letters = [{_IDS.get(key, key): value for key, value in letter.items()} for letter in page["dead"]]
    return JsonResponse({"success": True, "dead": letters, "next": page["next"]})


@router.post(
    "/api/gre-admin/dead/retry",
    summary="Send dead letters again",
    response_model=Retried,
    responses=errors(413),
)
async def retry(body: RetryDead, call: Authenticated) -> Response:
    """With all their attempts, in the order of their session. Admins only; what is not dead is left as it is."""
    count = await call(lambda portal, caller: portal.retry_dead(caller, body.ids))
    return JsonResponse({"success": True, "count": count})
