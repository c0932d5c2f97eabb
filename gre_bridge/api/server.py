"""uvicorn inside our own task: it listens, and it lets go of connections that do not let go themselves.

Nothing here knows what is served. What uvicorn 0.54 leaves to the peer (measured): a WebSocket whose client
reads nothing cannot be closed, neither by the application nor by a missed pong, and a frame that is too long
ends in a reset instead of code 1009.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gre_bridge.errors import ConfigurationError
from gre_bridge.settings import Settings

log = structlog.get_logger("gre.http")

MAX_FRAME = 64 * 1024
"""Bytes of a WebSocket frame that is taken."""
PING = 20.0
"""Seconds between pings, and for which an answer is waited for."""
KEEP_ALIVE = 75
"""Seconds for which an idle HTTP connection is kept: longer than the proxies in front, which commonly keep it 60."""
CLOSE_WITHIN = 2.0
"""Seconds that a peer has to read what it was sent and to close, before its connection is cut."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, whose end does not depend on the peer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*arguments, **options)
        # It writes the address, query and all, of each connection at INFO.
        self.logger = logging.getLogger("uvicorn.access")
        self.close_timeout = CLOSE_WITHIN
        self._failed = False

    async def send(self, message: Any) -> None:
        """Send, and do not let what the peer has not read yet hold up the close."""
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.close":
            self._cut_soon()

    async def run_asgi(self) -> None:
        """Run the application; what it left unread is cut off after a while."""
        await super().run_asgi()
        self._cut_soon()

    def shutdown(self) -> None:
        """Close with 1012."""
        super().shutdown()
        self._cut_soon()

    def keepalive_timeout(self) -> None:
        """Give up a peer that did not answer a ping."""
        super().keepalive_timeout()
        self._cut_soon()

    def data_received(self, data: bytes) -> None:
        """Take bytes; after a failure they are only thrown away, so that the close frame arrives."""
        if not self._failed:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Tell the peer why (1009, 1002, 1007) and wait for it to hang up: closing now would be a reset."""
        self._failed = True
        sent = self.conn.close_sent
        code, reason = (sent.code, sent.reason) if sent else (1006, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        with contextlib.suppress(OSError, RuntimeError):
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # (Its being set keeps uvicorn from closing at once when the application ends.)
        self.close_timer = self.loop.call_later(CLOSE_WITHIN, self._cut)

    def _cut_soon(self) -> None:
        self.loop.call_later(CLOSE_WITHIN, self._cut)

    def _cut(self) -> None:
        # (asyncio fails to abort a transport that has closed after its last write.)
        if not self.disconnected:
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn inside our own task and signal handling."""

    def capture_signals(self) -> object:  # type: ignore[override]
        """Leave the signals to the bridge."""
        return contextlib.nullcontext()


async def serve(app: ASGIApp, *, settings: Settings) -> None:
    """Serve until cancelled; open WebSockets are closed with 1012. Raises ConfigurationError when the address cannot be had."""
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
        ws=SocketProtocol,
        ws_max_size=MAX_FRAME,
        ws_ping_interval=PING,
        ws_ping_timeout=PING,
        # Frames are short, and each connection would keep a window for it.
        ws_per_message_deflate=False,
    )
    server = _Server(config)
    ipv6 = ":" in settings.http_host
    try:
        sock = socket.create_server(
            (settings.http_host, settings.http_port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
        )
    except OSError:
        raise ConfigurationError(
            f"GRE_HTTP_PORT: cannot listen on {settings.http_host}:{settings.http_port} (in use, or GRE_HTTP_HOST is not an address of this machine)"
        ) from None
    log.info("listening", address=f"http://{settings.http_host}:{sock.getsockname()[1]}")
    try:
        await server.serve(sockets=[sock])
    except asyncio.CancelledError:
        server.should_exit = True
        if server.started:
            await server.shutdown(sockets=[sock])
        raise
    finally:
        sock.close()
