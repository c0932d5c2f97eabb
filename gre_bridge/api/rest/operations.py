"""Operations over REST: the state of the relay and its dead letters. Answers contain no message text and no key.

The database lets only staff read the figures, and only admins the dead letters.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.rest.health import ServiceHealth
from gre_bridge.api.schemas.operations import DeadLetters, Operations, Retried
from gre_bridge.api.schemas.requests import DeadList, RetryDead
from gre_bridge.api.schemas.responses import errors
from gre_bridge.db.types import Json

_IDS = {"session_id": "sessionId", "message_id": "messageId"}
_SEVERITY = {None: 0, "closed": 1, "half_open": 2, "open": 3}

router = APIRouter(tags=["Operations"], dependencies=STAFF_PATHS)


@router.get(
    "/api/gre-admin/operations",
    summary="How the relay does",
    response_model=Operations,
    responses=errors(),
)
async def operations(request: Request, call: Authenticated) -> Response:
    """What waits for which sink and why, who relays, and how much was delivered in each minute of the last hour."""
    found = await call(lambda users, caller: users.operations(caller))
    health: ServiceHealth = request.app.state.health
    overview = await health.overview()
    # The database has the last reports of all daemons; this one's own state may be newer. The worse of the two counts.
    own = {row["sink"]: row for row in overview.get("sinks") or ()}
    sinks: list[Json] = []
    for sink in found["sinks"]:
        stored = {"breaker": sink.pop("breaker"), "error": sink.pop("last_error")}
        state = max(stored, own.get(sink["name"], stored), key=lambda item: _SEVERITY.get(item["breaker"], 9))
        error = {"last_error": state["error"]} if state["error"] else {}
        sinks.append({**sink, "breaker": state["breaker"] and state["breaker"].replace("_", "-"), **error})
    realtime_state = (overview.get("realtime") or {}).get("state")
    return JsonResponse({"success": True, **found, "sinks": sinks, "realtime_state": realtime_state})


@router.get(
    "/api/gre-admin/dead", summary="List dead letters", response_model=DeadLetters, responses=errors()
)
async def dead(query: Annotated[DeadList, Query()], call: Authenticated) -> Response:
    """Events that a sink has refused for good, the latest first. Admins only; ids, never text."""
    page = await call(
        lambda users, caller: users.dead(caller, sink=query.sink, limit=query.limit, cursor=query.cursor)
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
    count = await call(lambda users, caller: users.retry_dead(caller, body.ids))
    return JsonResponse({"success": True, "count": count})
