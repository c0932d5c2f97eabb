"""Middleware of every HTTP request: request id, security headers, CORS, one shape of errors, a limit on bodies.

No path has a meaning here, and no text of a request is repeated or logged.
"""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gre_bridge.api.addresses import canonical
from gre_bridge.api.origins import Origins
from gre_bridge.api.outages import RETRY_AFTER, as_refusal
from gre_bridge.errors import Refused, TransientError

log = structlog.get_logger("gre.http")

MAX_BODY = 64 * 1024
"""Bytes of a request's body that are accepted."""
MAX_DISCARDED_BODY = 1024 * 1024
"""Bytes of a body that is too long which are read and dropped, so that the client reads the answer."""
BODY_TIMEOUT = 10.0
"""Seconds in which a body must arrive."""
EXPOSED_HEADERS = ("X-Next-Before", "X-Request-Id", "ETag", "Retry-After")
"""Response headers that pages of other origins may read."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"
_TRACING_HEADERS = ("traceparent", "tracestate", "baggage", "sentry-trace")
"""Request headers that tracing libraries add to every request of a page."""


class JsonResponse(Response):
    """A JSON answer that is not cached."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """`content` is serialized by orjson; `headers` may override Cache-Control."""
        super().__init__(orjson.dumps(content), status, {"Cache-Control": "no-store", **(headers or {})})


class BodyRejected(Exception):  # noqa: N818 - the reason is in its status
    """A body is too long (413)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def problem(
    scope: Scope, status: int, code: str, error: str, *, retry_after: float | None = None,
    headers: Mapping[str, str] | None = None, extra: Mapping[str, Any] | None = None,
) -> JsonResponse:  # fmt: skip
    """Return an answer that is not 2xx. `error` is one line for the caller; `retry_after` is in seconds."""
    answer_headers = dict(headers or {})
    if retry_after is not None:
        answer_headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if status == 401:
        answer_headers["WWW-Authenticate"] = "Bearer"
    state = scope.setdefault("state", {})
    state["refusal"] = code
    request_id = state.get("request_id", "")
    return JsonResponse(
        {"success": False, "error": error, "code": code, "request_id": request_id, **(extra or {})},
        status,
        answer_headers,
    )


async def handle_refused(request: Request, error: Exception) -> Response:
    """Answer a request that was refused."""
    assert isinstance(error, Refused)
    wait = error.retry_after
    if wait is None and error.status in (429, 503):
        wait = RETRY_AFTER
    extra = {} if error.details is None else {"details": error.details}
    return problem(request.scope, error.status, error.code, str(error), retry_after=wait, extra=extra)


async def handle_unavailable(request: Request, error: Exception) -> Response:
    """Answer a request for which the database did not answer."""
    assert isinstance(error, TransientError)
    log.warning("database_unavailable", error=str(error), request_id=request.state.request_id)
    return await handle_refused(request, as_refusal(error))


class Cors(CORSMiddleware):
    """Starlette's CORS, with refusals in the API's shape and in the log."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        """`origins` may read answers. Tokens come in a header, so cookies are never allowed."""
        super().__init__(
            app, allow_origins=("*",) if origins.allows("*") else (), allow_methods=("GET", "POST", "PUT", "DELETE"), expose_headers=EXPOSED_HEADERS,
            allow_headers=("Authorization", "Content-Type", "If-None-Match", "X-Request-Id", *_TRACING_HEADERS),
        )  # fmt: skip
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        """Return True if pages of this origin may call."""
        return self._origins.allows(origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None:
            await super().__call__(scope, receive, send)
            return
        allowed = self.is_allowed_origin(origin)
        if not allowed and not self._origins.is_same_host(origin, headers.get("host", "")):
            self._origins.log_refused(origin)
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            await super().__call__(scope, receive, send)
            return
        answer = self.preflight_response(request_headers=headers)
        if answer.status_code != 200:
            # Starlette's text ("Disallowed CORS origin, method, headers") does not quote the request.
            text = bytes(answer.body).decode()
            text = text[0].lower() + text[1:] + ("" if allowed else " (GRE_CORS_ORIGINS names those allowed)")
            answer = problem(scope, 400, "cors_refused", text, headers={"Vary": answer.headers["Vary"]})
        await answer(scope, receive, send)


class RequestContext:
    """Sets the request id and the security headers; of a WebSocket, those of a refusal."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if client := scope.get("client"):
            scope["client"] = (canonical(client[0]), client[1])
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                # The console and the reference have policies of their own.
                headers.setdefault("Content-Security-Policy", _CONTENT_POLICY)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class ErrorBoundary:
    """Turns an exception into 500: its text must not be printed, because it may contain chat text.

    A request that is still in work when the server stops is cancelled, and is answered with 503: it may be repeated.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_observed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except asyncio.CancelledError:
            if started:
                raise
            # uvicorn's own answer would be a 500, which clients do not repeat.
            text = "the server is stopping, try again in a moment"
            await problem(scope, 503, "unavailable", text, retry_after=RETRY_AFTER)(scope, receive, send)
        except Exception as error:
            log.error("request_failed", exc_info=error, request_id=scope["state"]["request_id"])
            if not started:
                text = "something went wrong here; it was noted"
                await problem(scope, 500, "internal_error", text)(scope, receive, send)


class BodyLimit:
    """Reads the body before the application: a limit of bytes, whatever Content-Length says, and of time."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 413 or 408, or pass the whole body on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await _read_body(receive, Headers(scope=scope).get("content-length", ""))
        except BodyRejected as error:
            text = f"the body is longer than {MAX_BODY} bytes"
            await problem(scope, error.status, "too_large", text)(scope, receive, send)
            return
        except TimeoutError:
            text = "the body did not arrive in time"
            answer = problem(scope, 408, "too_slow", text, headers={"Connection": "close"})
            await answer(scope, receive, send)
            return
        if body is None:
            return  # the client has disconnected
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        await self._app(scope, replay, send)


async def _read_body(receive: Receive, content_length: str) -> bytes | None:
    """Read the body; None if the client disconnects. Raises BodyRejected."""
    if content_length.isdigit() and int(content_length) > MAX_DISCARDED_BODY:
        raise BodyRejected(413)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        if not message.get("more_body", False) or size > MAX_DISCARDED_BODY:
            break
    if size > MAX_BODY:
        raise BodyRejected(413)
    return b"".join(parts)
