"""Puts the HTTP face together: the operator's endpoints, the portals' API and the socket, in one envelope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute

from gre_bridge import __version__
from gre_bridge.api import console, reference
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.middleware import (
    BodyLimit,
    Cors,
    ErrorBoundary,
    RequestContext,
    problem,
    refused,
    unavailable,
)
from gre_bridge.api.origins import Origins
from gre_bridge.api.pusher_users import PusherUsers
from gre_bridge.api.read_limits import ReadLimits
from gre_bridge.api.request_log import RequestLog
from gre_bridge.api.rest import chat, operations, pusher_auth, staff
from gre_bridge.api.rest.health import Health
from gre_bridge.api.rest.health import router as health_router
from gre_bridge.api.rest.pusher_auth import Signer
from gre_bridge.api.server.serve import serve
from gre_bridge.config.settings import Settings
from gre_bridge.db.types import Json
from gre_bridge.errors import Refused, TransientError
from gre_bridge.metrics import Metrics

__all__ = ["create_app", "serve"]

_ABOUT = """\
What the portals of the chat call. Every call carries the user's own token (or the service key with `X-GRE-Act-As`), and
the database decides what it may do. Fields are taken in camelCase and in snake_case, ids as numbers or as digits.
Everything that is not 2xx is `{"success": false, "error", "code", "request_id"}`."""
_TAGS = [
    {"name": "Chat", "description": "Send and read."},
    {"name": "Staff", "description": "Sessions, replies, who may chat."},
    {"name": "Operations", "description": "How the relay does, and its dead letters."},
    {"name": "Pusher", "description": "Private channels."},
    {"name": "Health", "description": "How the chat is."},
]
_WORDS = {
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address takes other methods"),
}


_OPERATIONS = {
    "send": "sendMessage", "unified_send": "sendMessageUnified", "messages": "listMessages", "chat_history": "getChatHistory",
    "mark_read": "markRead", "me": "getMe",
    "reply": "sendReply", "sessions": "listSessions", "queue": "listQueue", "staff": "listStaff", "player": "getPlayer",
    "session_messages": "listSessionMessages", "set_status": "setSessionStatus", "operations": "getOperations",
    "dead": "listDeadLetters", "retry": "retryDeadLetters", "authorize": "authorizePusherChannel", "sign_in": "signInPusherUser",
    "chat_health": "getChatHealth",
}  # fmt: skip


def _operation_id(route: APIRoute) -> str:
    """Name an operation for the clients that are generated from the document."""
    return _OPERATIONS.get(route.name) or to_camel(route.name)


def create_app(
    *,
    health: Health,
    access: Authenticator,
    settings: Settings,
    sockets: Callable[..., Any] | None,
    overview: Callable[[], Awaitable[Json]],
    metrics: Metrics,
    pusher_users: PusherUsers | None = None,
) -> FastAPI:
    """Build the ASGI application.

    Without a portal behind `access` the API's paths answer 503 (`api_off`), and there is no console. `sockets` is the
    endpoint of `/ws`; `overview` is what the health of the chat tells staff: {"connections": int, "realtime": …, "sinks": …}.
    `metrics` counts the requests; `pusher_users` watches whom it signs for.
    """
    app = FastAPI(
        title="gre-bridge",
        version=__version__,
        description=_ABOUT,
        openapi_tags=_TAGS,
        license_info={"name": "MIT", "identifier": "MIT"},
        generate_unique_id_function=_operation_id,
        redoc_url=None,
        docs_url=None,  # FastAPI's own page loads its files from other hosts
        openapi_url="/openapi.json" if settings.docs else None,
        # A redirect would lead to this host's own name, past the proxy.
        redirect_slashes=False,
        # Older portals send JSON without saying so.
        strict_content_type=False,
        middleware=[
            Middleware(RequestLog, metrics),
            Middleware(RequestContext),
            Middleware(Cors, Origins(settings.cors_origins)),
            Middleware(ReadLimits),
            Middleware(ErrorBoundary),
            Middleware(BodyLimit),
        ],
        exception_handlers={
            Refused: refused,
            TransientError: unavailable,
            HTTPException: _http_error,
            RequestValidationError: _invalid,
        },
    )
    app.state.access = access
    app.state.signer = Signer(settings)
    app.state.pusher_users = pusher_users
    app.state.health = health
    app.state.overview = overview
    for router in (chat.router, staff.router, operations.router, pusher_auth.router, health_router):
        app.include_router(router)
    if settings.docs:
        app.include_router(reference.router())
    if settings.dev_pages:
        app.include_router(reference.links(settings.supabase_url))
    if settings.console and access.on:
        app.include_router(console.router(settings))
    if sockets is not None:
        app.router.routes.append(WebSocketRoute("/ws", sockets))
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, text = _WORDS.get(error.status_code, ("malformed", "the request is malformed"))
    return problem(request.scope, error.status_code, code, text, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """One line that names the field. pydantic's own words for the types used here quote no input."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(request.scope, 400, "malformed", "the body is not JSON")
    place = [str(part) for part in first["loc"][1:]]
    if first["loc"][0] == "body" and not place:
        if first["type"] == "missing":
            return problem(request.scope, 422, "invalid", "the body is missing")
        if "json" not in request.headers.get("content-type", "json"):
            return problem(request.scope, 415, "unsupported_media_type", "the body must be application/json")
        return problem(request.scope, 422, "invalid", "the body must be an object")
    said = str(first["msg"])
    return problem(request.scope, 422, "invalid", f"{'.'.join(place)}: {said[0].lower()}{said[1:]}")
