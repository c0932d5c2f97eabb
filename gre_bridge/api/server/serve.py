"""Runs uvicorn in a task of the daemon.

This module must not know what is served. The protocols (`http_protocol`, `websocket_protocol`) bound the cost of one peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket

import structlog
import uvicorn
from starlette.types import ASGIApp

from gre_bridge.api.addresses import ProxyHeaders, TrustedProxies, is_loopback
from gre_bridge.api.server.connections import BACKLOG, ConnectionLimiter, allot
from gre_bridge.api.server.http_protocol import HttpProtocol
from gre_bridge.api.server.websocket_protocol import MAX_FRAME, PING, SocketProtocol
from gre_bridge.config.settings import Settings

log = structlog.get_logger("gre.http")

KEEP_ALIVE = 75
"""Seconds for which an idle HTTP connection is kept: longer than proxies in front, which commonly use 60."""


ACCEPT_AT_ONCE = 64
"""Connections that asyncio's loop accepts before it reads from them. With more than GRE_MAX_CONNECTIONS the limiter would cut
connections whose request is there and unread. (uvloop accepts one.)"""


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, and with a backlog of its own: asyncio makes one number of both."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept from now on."""
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(BACKLOG)

    def capture_signals(self) -> object:  # type: ignore[override]
        """Leave the signals to the daemon."""
        return contextlib.nullcontext()


def _warn_if_proxies_are_untrusted(settings: Settings) -> None:
    """Warn if visitors are likely to come through a proxy that is not trusted: they would share one budget."""
    if not is_loopback(settings.http_host) and all(map(is_loopback, settings.trusted_proxies)):
        log.warning(
            "no_trusted_proxy",
            message="the API listens beyond this machine and trusts no proxy: behind a proxy all visitors would share one "
            "address; set GRE_TRUSTED_PROXIES to the proxy's address",
            host=settings.http_host,
        )


async def serve(app: ASGIApp, *, settings: Settings, sock: socket.socket) -> None:
    """Serve on a listening socket until cancelled, then close it. Open WebSockets are closed with 1012."""
    trusted = TrustedProxies(settings.trusted_proxies)
    limiter = ConnectionLimiter(most=allot(settings).http, trusted=trusted)
    _warn_if_proxies_are_untrusted(settings)
    config = uvicorn.Config(
        ProxyHeaders(app, trusted),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=2,
        backlog=ACCEPT_AT_ONCE,
        http=functools.partial(HttpProtocol, limiter=limiter),  # type: ignore[arg-type]
        ws=SocketProtocol,
        ws_max_size=MAX_FRAME,
        ws_ping_interval=PING,
        ws_ping_timeout=PING,
        # Frames are short, and each connection would keep a window for it.
        ws_per_message_deflate=False,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[sock])
    except asyncio.CancelledError:
        server.should_exit = True
        if server.started:
            await server.shutdown(sockets=[sock])
        raise
    finally:
        sock.close()
