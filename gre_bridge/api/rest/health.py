"""`/healthz` of the API's port (ok or not), and the health of the chat. Operators use the admin port (`gre_bridge.daemon`).

Callers who are not staff see nothing of sinks or conversations.
"""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from gre_bridge.api.auth import Authenticator, call_of
from gre_bridge.api.middleware import JsonResponse, problem
from gre_bridge.api.schemas.operations import ChatHealth
from gre_bridge.api.schemas.responses import errors
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json


class ServiceHealth(Protocol):
    """The state of this process and of the relay, as the API reports it."""

    @property
    def serving(self) -> bool:
        """True while no loop of this process is stalled and the process is not stopping."""

    @property
    def database(self) -> DatabaseStatus:
        """The state of the database."""

    def problems(self) -> list[str]:
        """List why this process is not ready, one line each."""

    async def overview(self) -> Json:
        """Return {"connections": int, "realtime": {…}, "sinks": [{…}]}; the last two only where there is a relay."""


router = APIRouter()


def _health(request: Request) -> ServiceHealth:
    found: ServiceHealth = request.app.state.health
    return found


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """Answer 200 while this process serves, 503 if a loop is stalled or the process is stopping."""
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
        **{status: text for status, text in errors().items() if status in (400, 401, 429)},
    },
    openapi_extra={"security": [{}, {"token": []}]},
)
async def chat_health(request: Request) -> Response:
    """Needs no token; with one of the staff it tells more: Realtime, sinks, backlog and the age of its oldest event."""
    health = _health(request)
    overview = await health.overview()
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
        request.scope, 503, "unavailable", "the database does not answer", retry_after=2, extra=body
    )


async def _is_staff(request: Request) -> bool:
    """Return True if there is a token and it is staff's. Raises Refused for a token that is not valid."""
    authenticator: Authenticator = request.app.state.authenticator
    call = call_of(request) if authenticator.enabled else None
    if call is None:
        return False
    return (await call(lambda users, caller: users.whoami(caller))).is_staff
