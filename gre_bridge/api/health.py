"""`/healthz` (the process), `/readyz` (503 with the reasons), `/metrics` (token or loopback).

Backlog figures are read when metrics are scraped, at most every few seconds, so an idle daemon makes no
request for them.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gre_bridge import __version__
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.settings import Settings
from gre_bridge.store import Store
from gre_bridge.telemetry import Metrics

log = structlog.get_logger("gre.http")

STATS_AGE = 5.0
"""Seconds for which backlog figures are good."""

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
        self._docs = settings.docs
        self._read_at = -STATS_AGE

    def app(self) -> FastAPI:
        """The ASGI application."""
        app = FastAPI(
            title="gre-bridge",
            version=__version__,
            redoc_url=None,
            docs_url="/docs" if self._docs else None,
            openapi_url="/openapi.json" if self._docs else None,
        )

        @app.get("/healthz")
        async def healthz() -> Response:
            return PlainTextResponse("ok\n") if self._alive() else PlainTextResponse("stuck\n", 503)

        @app.get("/readyz")
        async def readyz() -> Response:
            problems = self._problems()
            return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

        @app.get("/metrics")
        async def metrics(request: Request) -> Response:
            if not self._may_scrape(request):
                return PlainTextResponse("metrics need the token (GRE_METRICS_TOKEN) or loopback\n", 403)
            await self._refresh()
            return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

        return app

    def _may_scrape(self, request: Request) -> bool:
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
        for row in rows:
            sink = row["sink"]
            self._metrics.backlog.labels(sink).set(row["pending"])
            self._metrics.oldest_age.labels(sink).set(row["oldest_age"] or 0)
            self._metrics.dead.labels(sink).set(row["dead"])
            self._metrics.lanes_blocked.labels(sink).set(row["lanes_blocked"])


class _Server(uvicorn.Server):
    """uvicorn inside our own task and signal handling."""

    def capture_signals(self) -> object:  # type: ignore[override]
        """Leave the signals to the bridge."""
        import contextlib  # noqa: PLC0415

        return contextlib.nullcontext()


async def serve(health: Health, host: str, port: int) -> None:
    """Serve until cancelled. Raises ConfigurationError when the address cannot be had."""
    config = uvicorn.Config(
        health.app(), host=host, port=port, log_config=None, access_log=False, lifespan="off", ws="none",
        server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = _Server(config)
    try:
        sock = config.bind_socket()
    except SystemExit:
        raise ConfigurationError(
            f"GRE_HTTP_PORT: cannot listen on {host}:{port} (in use, or GRE_HTTP_HOST is not an address of this machine)"
        ) from None
    log.info("listening", address=f"http://{host}:{sock.getsockname()[1]}")
    try:
        await server.serve(sockets=[sock])
    except asyncio.CancelledError:
        server.should_exit = True
        await server.shutdown(sockets=[sock])
        raise
