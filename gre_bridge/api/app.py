"""Builds the ASGI application: the REST API, `/ws` and the console, behind one stack of middleware."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from gre_bridge import __version__
from gre_bridge.api import console, reference, widget
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.figure_limits import FigureLimits
from gre_bridge.api.middleware import (
    BodyLimit,
    Cors,
    ErrorBoundary,
    RequestContext,
    handle_refused,
    handle_unavailable,
    problem,
)
from gre_bridge.api.origins import Origins
from gre_bridge.api.pusher_users import PusherUsers
from gre_bridge.api.read_limits import ReadLimits
from gre_bridge.api.request_log import RequestLog
from gre_bridge.api.rest import (
    chat,
    colleagues,
    desk,
    export,
    files,
    operations,
    pusher_auth,
    replies,
    reports,
    staff,
)
from gre_bridge.api.rest.health import ServiceHealth
from gre_bridge.api.rest.health import router as health_router
from gre_bridge.api.rest.pusher_auth import Signer
from gre_bridge.api.server.serve import serve
from gre_bridge.api.ws.endpoint import Sockets, WebSocketEndpoint
from gre_bridge.config.settings import Settings
from gre_bridge.errors import Refused, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.storage.client import StorageClient

__all__ = ["create_app", "serve"]

_DESCRIPTION = """\
What the portals of the chat call. Every call carries the user's own token (or the service key with `X-GRE-Act-As`), and
the database decides what it may do. Fields are taken in camelCase and in snake_case, ids as numbers or as digits.
Everything that is not 2xx is `{"success": false, "error", "code", "request_id"}`."""
_TAGS = [
    {"name": "Chat", "description": "Send and read."},
    {"name": "Files", "description": "Photos and files: begin, upload to Supabase, send, show."},
    {"name": "Staff", "description": "Sessions, replies, who may chat."},
    {"name": "Desk", "description": "The queue, assignment, staff, settings, opening hours."},
    {"name": "Replies", "description": "Templates and auto-replies."},
    {"name": "Reports", "description": "Figures, what they count, and the export."},
    {"name": "Operations", "description": "How the relay does, and its dead letters."},
    {"name": "Pusher", "description": "Private channels."},
    {"name": "Health", "description": "How the chat is."},
]
_TEXTS = {
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address takes other methods"),
}


_OPERATION_IDS = {
    "send": "sendMessage", "unified_send": "sendMessageUnified", "messages": "listMessages", "chat_history": "getChatHistory",
    "mark_read": "markRead", "me": "getMe",
    "begin": "beginAttachment", "attachment": "getAttachment", "drop": "dropAttachment", "links": "getAttachmentLinks",
    "reply": "sendReply", "sessions": "listSessions", "queue": "listQueue", "staff": "listStaff", "player": "getPlayer",
    "session_messages": "listSessionMessages", "session_events": "listSessionEvents", "set_status": "setSessionStatus", "operations": "getOperations",
    "take": "takeSession", "release": "releaseSession", "transfer": "transferSession", "settings": "getSettings", "read_hours": "getHours",
    "notes": "listNotes", "search": "searchMessages",
    "templates": "listTemplates", "template": "getTemplate", "auto_replies": "listAutoReplies", "auto_reply": "getAutoReply",
    "report": "getReport", "report_sessions": "listReportSessions", "report_live": "getLiveFigures", "report_check": "checkReport",
    "export": "exportRows", "rate": "rateSession",
    "dead": "listDeadLetters", "retry": "retryDeadLetters", "authorize": "authorizePusherChannel", "sign_in": "signInPusherUser",
    "chat_health": "getChatHealth",
}  # fmt: skip


def _operation_id(route: APIRoute) -> str:
    """Return the name of an operation in generated clients."""
    return _OPERATION_IDS.get(route.name) or to_camel(route.name)


def create_app(
    *,
    health: ServiceHealth,
    authenticator: Authenticator,
    settings: Settings,
    endpoint: WebSocketEndpoint | None,
    metrics: Metrics,
    pusher_users: PusherUsers | None = None,
    storage: StorageClient | None = None,
    asyncapi: str | None = None,
) -> FastAPI:
    """Build the ASGI application.

    If the `authenticator` is not enabled, the API's paths answer 503 (`api_off`), and there is neither console nor chat element. `endpoint` serves
    `/ws`; `metrics` counts the requests; `pusher_users` gets the people whose subscriptions are signed;
    `storage` signs the addresses of files. `asyncapi` is the document of the live messages, which is served beside `/openapi.json`.
    """
    app = FastAPI(
        title="gre-bridge",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        servers=[{"url": "/", "description": "This daemon."}],
        license_info={"name": "MIT", "identifier": "MIT"},
        generate_unique_id_function=_operation_id,
        redoc_url=None,
        docs_url=None,  # FastAPI's page loads files from other hosts
        openapi_url="/openapi.json" if settings.docs else None,
        # A redirect would name this host instead of the proxy.
        redirect_slashes=False,
        # Older portals send JSON without its content type.
        strict_content_type=False,
        middleware=[
            Middleware(RequestLog, metrics),
            Middleware(RequestContext),
            *([] if endpoint is None else [Middleware(Sockets, endpoint)]),
            Middleware(Cors, Origins(settings.cors_origins)),
            Middleware(ReadLimits),
            Middleware(ErrorBoundary),
            Middleware(BodyLimit),
        ],
        exception_handlers={
            Refused: handle_refused,
            TransientError: handle_unavailable,
            HTTPException: _http_error,
            RequestValidationError: _invalid,
        },
    )
    app.state.authenticator = authenticator
    app.state.signer = Signer(settings)
    app.state.pusher_users = pusher_users
    app.state.storage = storage
    app.state.storage_failed = False
    app.state.figure_limits = FigureLimits()
    app.state.health = health
    for router in (
        chat.router,
        reports.rating_router,
        files.router,
        staff.router,
        desk.router,
        colleagues.router,
        replies.router,
        reports.router,
        export.router,
        operations.router,
        pusher_auth.router,
        health_router,
    ):
        app.include_router(router)
    if settings.docs:
        app.include_router(reference.router(asyncapi))
    if settings.dev_pages:
        app.include_router(reference.links(settings.supabase_url))
    if settings.console and authenticator.enabled:
        app.include_router(console.router(settings))
    if settings.widget and authenticator.enabled:
        app.include_router(widget.router())
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, text = _TEXTS.get(error.status_code, ("malformed", "the request is malformed"))
    return problem(request.scope, error.status_code, code, text, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer with one line that names the field. pydantic's messages for the types used here do not quote the input."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(request.scope, 400, "malformed", "the body is not JSON")
    path = [str(part) for part in first["loc"][1:]]
    if first["loc"][0] == "body" and not path:
        if first["type"] == "missing":
            return problem(request.scope, 422, "invalid", "the body is missing")
        if "json" not in request.headers.get("content-type", "json"):
            return problem(request.scope, 415, "unsupported_media_type", "the body must be application/json")
        return problem(request.scope, 422, "invalid", "the body must be an object")
    text = str(first["msg"])
    return problem(request.scope, 422, "invalid", f"{'.'.join(path)}: {text[0].lower()}{text[1:]}")
