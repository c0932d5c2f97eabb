"""The outermost middleware: counts and logs each request, and answers HEAD wherever GET is answered.

A refused request is logged at level info with its code, whatever the settings; the rate of these lines is bounded.
A line has the method, the route's template, the status, the time and ids: no path, no query, no text and no token.
"""

from __future__ import annotations

import base64
import time

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gre_bridge.api.pacing import TokenBucket
from gre_bridge.logging import ACCESS_LOG
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.api")

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ROLES = ("player", "staff", "admin", "service_role", "authenticated", "anon")
_MAX_TOKEN = 16 * 1024
_REFUSALS, _REFUSALS_WITHOUT_TOKEN = (2.0, 60.0), (0.2, 5.0)
"""Lines per second and at once, for refused requests with and without a token."""


class RequestLog:
    """The middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap `app`; `metrics` counts the requests."""
        self._app = app
        self._metrics = metrics
        now = time.monotonic()
        self._with_token = TokenBucket(*_REFUSALS, now)
        self._without_token = TokenBucket(*_REFUSALS_WITHOUT_TOKEN, now)
        self._unwritten = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket until it closes."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "WEBSOCKET")
        # uvicorn knows that the request is HEAD and sends no body. The router writes into the copy.
        inner = {**scope, "method": "GET", "gre.head": True} if method == "HEAD" else scope
        inner.setdefault("state", {})
        status = 0
        started = time.perf_counter()

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(inner, receive, send_observed)
        finally:
            took = time.perf_counter() - started
            route = getattr(inner.get("route"), "path", None) or ("/ws" if method == "WEBSOCKET" else "none")
            label = method if method in (*_METHODS, "WEBSOCKET") else "other"
            self._metrics.http_requests.labels(label, route, str(status)).inc()
            if method != "WEBSOCKET":
                self._metrics.http_time.labels(route).observe(took)
            if ACCESS_LOG.on:
                ACCESS_LOG.write(
                    "request", method=label, route=route, status=status, ms=round(took * 1e3, 1),
                    request_id=inner["state"].get("request_id"), role=_claimed_role(inner),
                )  # fmt: skip
            elif 400 <= status < 500:
                self._log_refusal(inner, label, route, status)

    def _log_refusal(self, scope: Scope, method: str, route: str, status: int) -> None:
        """Log a refused request. If there are too many, the next line has the number of those not logged."""
        role = _claimed_role(scope)
        budget = self._without_token if role == "none" else self._with_token
        if not budget.take(time.monotonic()):
            self._unwritten += 1
            return
        extra = {"unwritten": self._unwritten} if self._unwritten else {}
        self._unwritten = 0
        log.info(
            "request_refused", method=method, route=route, status=status, code=scope["state"].get("refusal"),
            request_id=scope["state"].get("request_id"), role=role, **extra,
        )  # fmt: skip


def _claimed_role(scope: Scope) -> str:
    """Return the role that the token claims, unverified; "none" without a token, "other" for anything unknown."""
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    parts = header[:_MAX_TOKEN].rpartition(b" ")[2].split(b".")
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
