"""uvicorn inside our own task: it listens, and it stops when it is told to.

Nothing here knows what is served. The protocols (`http_protocol`, `socket_protocol`) bound what one peer may cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn
from starlette.types import ASGIApp

from gre_bridge.api.http_protocol import HttpProtocol
from gre_bridge.api.socket_protocol import MAX_FRAME, PING, SocketProtocol
from gre_bridge.settings import Settings

KEEP_ALIVE = 75
"""Seconds for which an idle HTTP connection is kept: longer than the proxies in front, which commonly keep it 60."""


class _Server(uvicorn.Server):
    """uvicorn inside our own task and signal handling."""

    def capture_signals(self) -> object:  # type: ignore[override]
        """Leave the signals to the bridge."""
        return contextlib.nullcontext()


async def serve(app: ASGIApp, *, settings: Settings, sock: socket.socket) -> None:
    """Serve on a listening socket until cancelled, then close it; open WebSockets are closed with 1012."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=2,
        http=HttpProtocol,
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
