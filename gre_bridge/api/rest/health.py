"""`/healthz` of the API's port (ok or not), and how the chat is. What operators ask is on the admin port (`gre_bridge.daemon`).

What everyone may see says nothing about sinks or conversations.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from gre_bridge.api.auth import Authenticator, call_of
from gre_bridge.api.middleware import JsonResponse, problem
from gre_bridge.api.schemas.responses import ChatHealth, errors
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json


class Health:
    """What this process knows of itself."""

    def __init__(
        self,
        *,
        database: DatabaseStatus,
        problems: Callable[[], list[str]],
        stalled: Callable[[], str],
        stopping: Callable[[], bool],
    ) -> None:
        """`problems` lists why this process is not ready, `stalled` names a loop that does not turn any more."""
        self.database = database
        self.problems = problems
        self._stalled = stalled
        self._stopping = stopping

    @property
    def serving(self) -> bool:
        """Whether the loops turn, and clients may go on coming."""
        return not self._stalled() and not self._stopping()


router = APIRouter()


def _health(request: Request) -> Health:
    found: Health = request.app.state.health
    return found


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """Whether this process serves: 503 when a loop does not turn, and while it stops."""
    return PlainTextResponse("ok\n") if _health(request).serving else PlainTextResponse("not ok\n", 503)


@router.get(
    "/api/gre-chat/health",
    tags=["Health"],
    summary="How the chat is",
    response_model=ChatHealth,
    responses={
        503: {
            "model": ChatHealth,
            "description": "`down`: the database does not answer (also `error`, `code`, `request_id`)",
        },
        **{status: said for status, said in errors().items() if status in (400, 401, 429)},
    },
    openapi_extra={"security": [{}, {"token": []}]},
)
async def chat_health(request: Request) -> Response:
    """Needs no token; with one of the staff it tells more: Realtime, sinks, backlog and the age of its oldest event."""
    health, state = _health(request), request.app.state
    overview: Json = await state.overview()
    connected = not await health.database.problem()
    degraded = health.problems() or any(sink["breaker"] != "closed" for sink in overview.get("sinks") or ())
    status = "down" if not connected else "degraded" if degraded else "ok"
    body: Json = {
        "success": True,
        "status": status,
        "database": {"connected": connected},
        "websocket": {"connections": overview.get("connections", 0)},
    }
    if connected and await _is_staff(request):
        backlog, oldest = await health.database.waiting()
        body |= {"realtime": overview.get("realtime"), "sinks": overview.get("sinks")}
        body |= {"backlog": backlog, "oldest_age_seconds": oldest}
    if connected:
        return JsonResponse(body)
    return problem(
        request.scope, 503, "unavailable", "the database does not answer", retry_after=2, more=body
    )


async def _is_staff(request: Request) -> bool:
    """Whether the token, if there is one, is staff's. Raises Refused for one that is not valid."""
    access: Authenticator = request.app.state.access
    call = call_of(request) if access.on else None
    if call is None:
        return False
    return (await call(lambda portal, caller: portal.whoami(caller))).is_staff
