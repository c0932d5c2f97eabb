"""The outermost middleware: counts each request, writes a line about it, and answers HEAD wherever GET is answered.

A line has the method, the route's template, the status, the time and ids: no path, no query, no text and no token.
"""

from __future__ import annotations

import base64
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gre_bridge.telemetry import ACCESS_LOG, Metrics

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ROLES = ("player", "staff", "admin", "service_role", "authenticated", "anon")
_LONGEST_TOKEN = 16 * 1024


class Requests:
    """See the module."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Put around `app`."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket to its end."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "WEBSOCKET")
        # (uvicorn, which knows the request as HEAD, sends no body.) The copy is what the router writes into.
        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        inner.setdefault("state", {})
        status = 0
        began = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(inner, receive, noting)
        finally:
            took = time.perf_counter() - began
            route = getattr(inner.get("route"), "path", None) or ("/ws" if method == "WEBSOCKET" else "none")
            known = method if method in (*_METHODS, "WEBSOCKET") else "other"
            self._metrics.http_requests.labels(known, route, str(status)).inc()
            if method != "WEBSOCKET":
                self._metrics.http_time.labels(route).observe(took)
            if ACCESS_LOG.on:
                ACCESS_LOG.write(
                    "request", method=known, route=route, status=status, ms=round(took * 1e3, 1),
                    request_id=inner["state"].get("request_id"), role=_claimed_role(inner),
                )  # fmt: skip


def _claimed_role(scope: Scope) -> str:
    """What the token says of its bearer, unverified: the database decides what that is worth."""
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    parts = header[:_LONGEST_TOKEN].rpartition(b" ")[2].split(b".")
    if not header:
        return "none"
    if len(parts) != 3:
        return "other"
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
        role = claims.get("app_metadata", {}).get("gre_role") or claims.get("role")
    except (ValueError, AttributeError):
        return "other"
    return role if role in _ROLES else "other"
