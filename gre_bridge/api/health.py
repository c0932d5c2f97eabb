"""`/healthz` (the process), `/readyz` (503 with the reasons), `/metrics` (token or loopback), and how the chat is.

Backlog figures are read when somebody asks, at most every few seconds, so an idle daemon makes no request for
them. What everyone may see says nothing about sinks or conversations.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gre_bridge.api.access import Access, call_of
from gre_bridge.api.envelope import Reply, problem
from gre_bridge.api.shapes import ChatHealth, errors
from gre_bridge.errors import BridgeError
from gre_bridge.models import Json
from gre_bridge.settings import Settings
from gre_bridge.store import Store
from gre_bridge.telemetry import Metrics

STATS_AGE = 5.0
"""Seconds for which backlog figures are good."""

DATABASE_AGE = 1.0
"""Seconds for which it is known whether the database answers."""

STATS_WITHIN = 2.0
"""Seconds that a scrape waits for them; older figures are served while the database does not answer."""


class Health:
    """What the operator's endpoints answer."""

    def __init__(
        self,
        metrics: Metrics,
        store: Store,
        problems: Callable[[], list[str]],
        alive: Callable[[], bool],
        settings: Settings,
    ) -> None:
        """`problems` lists why the daemon is not ready."""
        self._metrics = metrics
        self._store = store
        self._problems = problems
        self._alive = alive
        self._token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
        self._read_at = -STATS_AGE
        self._rows: list[Json] = []
        self._asking = asyncio.Lock()
        self._asked_at = -DATABASE_AGE
        self._answers = False

    @property
    def alive(self) -> bool:
        """Whether the loop turns."""
        return self._alive()

    @property
    def problems(self) -> list[str]:
        """Why the daemon is not ready, one line each."""
        return self._problems()

    async def database(self) -> bool:
        """Whether the database answers; known for a second."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= DATABASE_AGE:
                try:
                    async with asyncio.timeout(STATS_WITHIN):
                        await self._store.schema_version()
                    self._answers = True
                except (BridgeError, TimeoutError):
                    self._answers = False
                self._asked_at = time.monotonic()
            return self._answers

    async def metrics(self) -> bytes:
        """Everything that is measured, for Prometheus."""
        await self._refresh()
        return generate_latest(self._metrics.registry)

    async def waiting(self) -> tuple[int, float]:
        """How many events wait to be relayed, and for how many seconds the oldest has waited."""
        await self._refresh()
        return sum(row["pending"] for row in self._rows), max(
            (row["oldest_age"] or 0.0 for row in self._rows), default=0.0
        )

    def may_scrape(self, request: Request) -> bool:
        """Whether the metrics are this caller's to read: by the token, or from this machine."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = self._token if scheme.lower() == "bearer" else None
        if expected is not None and hmac.compare_digest(given.strip().encode(), expected.encode()):
            return True
        # Behind a proxy every caller looks like loopback: a forwarded request is not a local one.
        if "forwarded" in request.headers or "x-forwarded-for" in request.headers:
            return False
        try:
            address = ipaddress.ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    async def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at < STATS_AGE:
            return
        self._read_at = now
        try:
            async with asyncio.timeout(STATS_WITHIN):
                rows = await self._store.stats()
        except TimeoutError:
            self._metrics.store_errors.labels("transient").inc()
            return
        except BridgeError as error:
            self._metrics.store_errors.labels(error.kind).inc()
            return
        self._rows = rows
        for row in rows:
            sink = row["sink"]
            self._metrics.backlog.labels(sink).set(row["pending"])
            self._metrics.oldest_age.labels(sink).set(row["oldest_age"] or 0)
            self._metrics.dead.labels(sink).set(row["dead"])
            self._metrics.lanes_blocked.labels(sink).set(row["lanes_blocked"])


router = APIRouter()


def _health(request: Request) -> Health:
    found: Health = request.app.state.health
    return found


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """Whether the process is alive."""
    return PlainTextResponse("ok\n") if _health(request).alive else PlainTextResponse("stuck\n", 503)


@router.get("/readyz", include_in_schema=False)
async def readyz(request: Request) -> Response:
    """Whether the daemon is ready, and why not."""
    problems = _health(request).problems
    return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Prometheus' text."""
    health = _health(request)
    if not health.may_scrape(request):
        return PlainTextResponse("metrics need the token (GRE_METRICS_TOKEN) or loopback\n", 403)
    return Response(await health.metrics(), media_type=CONTENT_TYPE_LATEST)


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
    overview: Json = state.overview()
    connected = await health.database()
    status = "down" if not connected else "degraded" if health.problems else "ok"
    body: Json = {
        "success": True,
        "status": status,
        "database": {"connected": connected},
        "websocket": {"connections": overview.get("connections", 0)},
    }
    if connected and await _is_staff(request):
        backlog, oldest = await health.waiting()
        body |= {"realtime": overview.get("realtime"), "sinks": overview.get("sinks")}
        body |= {"backlog": backlog, "oldest_age_seconds": oldest}
    if connected:
        return Reply(body)
    return problem(
        request.scope, 503, "unavailable", "the database does not answer", retry_after=2, more=body
    )


async def _is_staff(request: Request) -> bool:
    """Whether the token, if there is one, is staff's. Raises Refused for one that is not valid."""
    access: Access = request.app.state.access
    call = call_of(request) if access.on else None
    if call is None:
        return False
    return (await call(lambda portal, caller: portal.whoami(caller))).is_staff
