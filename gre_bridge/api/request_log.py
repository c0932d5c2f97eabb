"""The outermost middleware: counts each request, writes a line about it, and answers HEAD wherever GET is answered.

A refused request leaves a line at level info, with its code, whatever the settings; their number is bounded.
A line has the method, the route's template, the status, the time and ids: no path, no query, no text and no token.
"""

from __future__ import annotations

import base64
import time

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gre_bridge.api.pacing import Bucket
from gre_bridge.logging import ACCESS_LOG
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.api")

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ROLES = ("player", "staff", "admin", "service_role", "authenticated", "anon")
_LONGEST_TOKEN = 16 * 1024
_REFUSALS, _REFUSALS_OF_STRANGERS = (2.0, 60.0), (0.2, 5.0)
"""Lines a second and at once, for refused requests that bring a token and for those that bring none."""


class RequestLog:
    """See the module."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Put around `app`."""
        self._app = app
        self._metrics = metrics
        now = time.monotonic()
        self._lines = {
            known: Bucket(rate, burst, burst, now)
            for known, (rate, burst) in {True: _REFUSALS, False: _REFUSALS_OF_STRANGERS}.items()
        }
        self._unwritten = 0

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
            elif 400 <= status < 500:
                self._note_refusal(inner, known, route, status)

    def _note_refusal(self, scope: Scope, method: str, route: str, status: int) -> None:
        """Write a line about a refused request; where there are too many, the next line says how many had none."""
        role = _claimed_role(scope)
        if not self._lines[role != "none"].take(time.monotonic()):
            self._unwritten += 1
            return
        more = {"unwritten": self._unwritten} if self._unwritten else {}
        self._unwritten = 0
        log.info(
            "request_refused", method=method, route=route, status=status, code=scope["state"].get("refusal"),
            request_id=scope["state"].get("request_id"), role=role, **more,
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
