"""uvicorn's WebSocket protocol, and what its end needs beyond it.

Nothing here knows what is said. What uvicorn 0.54 leaves to the peer (measured): a WebSocket whose client
reads nothing cannot be closed, neither by the application nor by a missed pong, and a frame that is too long
ends in a reset instead of code 1009.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_FRAME = 64 * 1024
"""Bytes of a WebSocket frame that is taken."""
PING = 20.0
"""Seconds between pings, and for which an answer is waited for."""
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
