"""uvicorn's WebSocket protocol with limits on the cost of a peer, and a close that does not depend on the peer.

Nothing here knows what is said; whole messages are counted by the application. What uvicorn 0.54 leaves to the peer
(measured): a WebSocket whose client reads nothing cannot be closed, neither by the application nor by a missed pong; a
frame that is too long ends in a reset instead of code 1009; 256 KB of empty pings or fragments (43,000 frames) are
parsed in one step; pongs that nobody reads are kept, as many as there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gre_bridge.api.addresses import canonical
from gre_bridge.api.server.http_protocol import error_response, quiet_logger

MAX_FRAME = 64 * 1024
"""Bytes of a WebSocket frame that is accepted."""
PING = 20.0
"""Seconds between pings, and in which a pong must arrive."""
CHUNK = 16 * 1024
"""Bytes parsed in one step of the event loop."""
FRAMES_PER_SECOND = 20.0
FRAMES_BURST = 100.0
"""Control frames and fragments that a peer may send; with more it is closed with 1008."""
FRAGMENTS = 64
"""Fragments of one message."""
CLOSE_WITHIN = 2.0
"""Seconds that a peer has to read what it was sent and to close, before its connection is cut."""


OFFER = "gre.offer"
"""The ASGI extension that writes the bytes of a frame at once (SocketProtocol.offer)."""


@functools.lru_cache(maxsize=4)
def text_frame(text: str) -> bytes:
    """Return the bytes of a server's text frame. The latest are kept: one frame goes to many connections in a row."""
    data = text.encode()
    size = len(data)
    if size < 126:
        return bytes((0x81, size)) + data
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + data
    return b"\x81\x7f" + size.to_bytes(8, "big") + data


class BoundedParser(ServerProtocol):
    """websockets' protocol, which fails a peer that sends more than its share of frames that are no messages."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        """As ServerProtocol; `clock` gives seconds."""
        super().__init__(**options)
        self._clock = clock
        self._tokens = FRAMES_BURST
        self._filled = clock()
        self._fragments = 0

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame. Raises ProtocolError, with the close frame written already."""
        if frame.opcode is Opcode.CONT or not frame.fin:
            self._fragments = 1 if frame.opcode is not Opcode.CONT else self._fragments + 1
            if self._fragments > FRAGMENTS:
                self._refuse("too many fragments")
            self._spend()
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            self._spend()
        super().recv_frame(frame)

    def _spend(self) -> None:
        now = self._clock()
        self._tokens = min(FRAMES_BURST, self._tokens + (now - self._filled) * FRAMES_PER_SECOND) - 1
        self._filled = now
        if self._tokens < 0:
            self._refuse("too many control frames or fragments")

    def _refuse(self, reason: str) -> None:
        # (Nothing of what follows is parsed: `fail` leaves a parser that discards.)
        self.fail(CloseCode.POLICY_VIOLATION, reason)
        raise ProtocolError(reason)


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection with these limits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*arguments, **options)
        # They write the address, query and all, of each connection at INFO.
        self.logger = quiet_logger()
        self.close_timeout = CLOSE_WITHIN
        self.conn = BoundedParser(max_size=self.config.ws_max_size, logger=self.logger)
        self._failed = False
        self._understood = False
        # Input that is not parsed yet: at most one read, since reading is paused meanwhile.
        self._incoming = bytearray()
        self._unread_pongs = False
        self._turn: asyncio.Handle | None = None

    def connection_made(self, transport: Any) -> None:
        """As uvicorn does, with the peer's address in its one spelling."""
        super().connection_made(transport)
        if self.client is not None:
            self.client = (canonical(self.client[0]), self.client[1])

    async def send(self, message: Any) -> None:
        """Send, and do not let what the peer has not read yet hold up the close."""
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.close":
            self._unread_pongs = False
            self._go_on()
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
        """Close the connection of a peer that did not answer a ping."""
        super().keepalive_timeout()
        self._cut_soon()

    def data_received(self, data: bytes) -> None:
        """Accept bytes; after a failure they are dropped, so that the close frame arrives."""
        if not self._failed:
            self._incoming += data
            if self._turn is None:
                self._parse()

    def _parse(self) -> None:
        """Parse one chunk; the rest waits, and reading pauses meanwhile."""
        self._turn = None
        if self._incoming and self._may_read and not self._failed:
            chunk = bytes(self._incoming[:CHUNK])
            del self._incoming[:CHUNK]
            super().data_received(chunk)
            self._refuse_handshake()
        if self._failed or self.transport.is_closing():
            self._incoming.clear()
        elif self._incoming:
            self.transport.pause_reading()
            self._go_on()
        elif self._may_read:
            self.transport.resume_reading()

    def handle_connect(self, event: Any) -> None:
        """Begin with a request that was understood."""
        self._understood = True
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][OFFER] = {"offer": self.offer}

    def offer(self, data: bytes) -> bool:
        """Write the bytes of a frame; return False if the peer does not read, or the connection is not open."""
        if not self.writable.is_set() or self.conn.state is not State.OPEN or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    def _refuse_handshake(self) -> None:
        """Answer a request that is no handshake: uvicorn looks only for mistakes after it."""
        if self.conn.handshake_exc is not None and not self._understood and not self.transport.is_closing():
            self._failed = True
            self.transport.write(error_response(400, "malformed", "the WebSocket handshake is malformed"))
            self.transport.close()

    @property
    def _may_read(self) -> bool:
        """True if the application has received the messages, and the peer its pongs."""
        return not (self.read_paused or self._unread_pongs)

    def _go_on(self) -> None:
        if self._turn is None and self._may_read:
            self._turn = self.loop.call_soon(self._parse)

    async def receive(self) -> Any:
        """Give the application the next event; when it has all of them, read on."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._go_on()
        return message

    def handle_ping(self) -> None:
        """Answer, and stop reading while the peer does not read the answers."""
        super().handle_ping()
        if not self.writable.is_set():
            self._unread_pongs = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Continue: the peer has read."""
        super().resume_writing()
        if self._unread_pongs:
            self._unread_pongs = False
            self._go_on()

    def handle_parser_exception(self) -> None:
        """Tell the peer why (1009, 1002, 1007) and wait for it to hang up: closing now would be a reset."""
        self._failed = True
        self._incoming.clear()
        sent = self.conn.close_sent
        code, reason = (sent.code, sent.reason) if sent else (1006, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        with contextlib.suppress(OSError, RuntimeError):
            self.transport.write_eof()
        self.read_paused = self._unread_pongs = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        # (Its being set keeps uvicorn from closing at once when the application ends.)
        self.close_timer = self.loop.call_later(CLOSE_WITHIN, self._cut)

    def _cut_soon(self) -> None:
        self.loop.call_later(CLOSE_WITHIN, self._cut)

    def _cut(self) -> None:
        # (asyncio fails to abort a transport that has closed after its last write.)
        if not self.disconnected:
            self.transport.abort()
