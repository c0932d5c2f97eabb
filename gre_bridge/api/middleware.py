"""What every HTTP answer has in common: a request id, careful headers, one shape of errors, a bound on bodies.

It must not know what is asked: no path has a meaning here, and no text of a request is repeated or logged.
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
"""Bytes of a request's body that are taken."""
READ_ON = 1024 * 1024
"""Bytes of one that is too long which are read all the same, so that its sender gets to the answer."""
BODY_WITHIN = 10.0
"""Seconds for a body to arrive."""
EXPOSED = ("X-Next-Before", "X-Request-Id", "ETag", "Retry-After")
"""Headers that pages of other origins may read."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_TRACING = ("traceparent", "tracestate", "baggage", "sentry-trace")
"""Headers that tracing adds to every request of a page."""


class JsonResponse(Response):
    """A JSON answer that nobody keeps."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """`content` is whatever orjson writes; `headers` may say otherwise about caching."""
        super().__init__(orjson.dumps(content), status, {"Cache-Control": "no-store", **(headers or {})})


class BodyRejected(Exception):  # noqa: N818 - the reason is in its status
    """A body that is too long (413) or too slow (408)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def problem(
    scope: Scope, status: int, code: str, error: str, *, retry_after: float | None = None,
    headers: Mapping[str, str] | None = None, more: Mapping[str, Any] | None = None,
) -> JsonResponse:  # fmt: skip
    """The one shape of everything that is not 2xx. `error` is one line that the caller may read."""
    said = dict(headers or {})
    if retry_after is not None:
        said["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if status == 401:
        said["WWW-Authenticate"] = "Bearer"
    state = scope.setdefault("state", {})
    state["refusal"] = code
    request_id = state.get("request_id", "")
    return JsonResponse(
        {"success": False, "error": error, "code": code, "request_id": request_id, **(more or {})},
        status,
        said,
    )


async def refused(request: Request, error: Exception) -> Response:
    """Answer for what the database refused."""
    assert isinstance(error, Refused)
    wait = error.retry_after
    if wait is None and error.status in (429, 503):
        wait = RETRY_AFTER
    return problem(request.scope, error.status, error.code, str(error), retry_after=wait)


async def unavailable(request: Request, error: Exception) -> Response:
    """Answer for a database that does not."""
    assert isinstance(error, TransientError)
    log.warning("the database did not answer", problem=str(error), request_id=request.state.request_id)
    return await refused(request, as_refusal(error))


class Cors(CORSMiddleware):
    """CORS as Starlette does it, refusals in our shape and in the log."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        """`origins` may read answers; tokens come in a header, so cookies are never allowed."""
        super().__init__(
            app, allow_origins=("*",) if origins.allows("*") else (), allow_methods=("GET", "POST", "PUT"), expose_headers=EXPOSED,
            allow_headers=("Authorization", "Content-Type", "If-None-Match", "X-Request-Id", *_TRACING),
        )  # fmt: skip
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        """Return True when pages of this origin may call."""
        return self._origins.allows(origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or let the request through."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None:
            await super().__call__(scope, receive, send)
            return
        known = self.is_allowed_origin(origin)
        if not known and not self._origins.same(origin, headers.get("host", "")):
            self._origins.refused(origin)
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            await super().__call__(scope, receive, send)
            return
        answer = self.preflight_response(request_headers=headers)
        if answer.status_code != 200:
            # "Disallowed CORS origin, method, headers": its own words, none of the request's.
            said = bytes(answer.body).decode()
            text = said[0].lower() + said[1:] + ("" if known else " (GRE_CORS_ORIGINS names those allowed)")
            answer = problem(scope, 400, "cors_refused", text, headers={"Vary": answer.headers["Vary"]})
        await answer(scope, receive, send)


class RequestContext:
    """The outermost middleware; of a WebSocket it dresses the refusal."""

    def __init__(self, app: ASGIApp) -> None:
        """Put around `app`."""
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

        async def send_dressed(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                # (The console and the reference have policies of their own.)
                headers.setdefault("Content-Security-Policy", _POLICY)
            await send(message)

        await self._app(scope, receive, send_dressed)


class ErrorBoundary:
    """The last stop of an exception: nobody above it may print its text."""

    def __init__(self, app: ASGIApp) -> None:
        """Put around `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with 500 where that raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            log.error("a request failed", exc_info=error, request_id=scope["state"]["request_id"])
            if not started:
                text = "something went wrong here; it was noted"
                await problem(scope, 500, "internal_error", text)(scope, receive, send)


class BodyLimit:
    """Reads the body before anyone else: within a bound of bytes, whatever Content-Length says, and of time."""

    def __init__(self, app: ASGIApp) -> None:
        """Put around `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 413 or 408, or hand the body on whole."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_WITHIN):
                body = await _whole(receive, Headers(scope=scope).get("content-length", ""))
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
            return  # the caller has hung up
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        await self._app(scope, replay, send)


async def _whole(receive: Receive, announced: str) -> bytes | None:
    """Read the body; None when its sender went away. Raises Too."""
    if announced.isdigit() and int(announced) > READ_ON:
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
        if not message.get("more_body", False) or size > READ_ON:
            break
    if size > MAX_BODY:
        raise BodyRejected(413)
    return b"".join(parts)
