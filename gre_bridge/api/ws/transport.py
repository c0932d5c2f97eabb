"""The line to one client: frames out over a bounded queue, frames in at a bounded rate, and its end.

It must not know who the client is nor what its frames mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gre_bridge.api.ws.frames import ClientFrame, FieldError, FrameError, Ping, frame, read
from gre_bridge.db.types import Json

QUEUE_FRAMES = 2000
QUEUE_BYTES = 4 * 1024 * 1024
"""What may wait at all: answers to a client that asks and does not read."""
FULL_FRAMES, FULL_BYTES = 500, 256 * 1024
"""What may wait of what others say; the rest is read from the database when this has been taken."""
BUSY_FRAMES, BUSY_BYTES = 100, 64 * 1024
"""What may wait before `drained` waits, and somebody with more to tell had better pause."""
STALLED = 30.0
"""Seconds in which a client may take nothing at all of what waits for it."""
SLICE = 0.005
"""Seconds of writing after which the others have a turn."""
INBOX = 64
FRAMES_PER_SECOND = 20.0
FRAMES_BURST = 100.0
CLOSE_WITHIN = 2.0


class CloseConnection(Exception):  # noqa: N818 - not an error, the way out
    """Ends the socket with a close code; `error` is told in a frame before."""

    def __init__(self, code: int, reason: str, error: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


class ClientTransport:
    """Frames to and from one accepted WebSocket."""

    def __init__(self, websocket: WebSocket, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ws = websocket
        self._clock = clock
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._stirred = asyncio.Event()
        self._drained = asyncio.Event()
        self._tokens = FRAMES_BURST
        self._filled = clock()
        self._ended = asyncio.Event()
        self.closing: CloseConnection | None = None
        """Why it ends, unless the client went."""
        self.inbox: asyncio.Queue[ClientFrame] = asyncio.Queue(INBOX)
        """What the client sent, pings apart."""

    # Out

    def put(self, text: str) -> None:
        """Send a frame in its turn; a reader that is too slow for that is dropped."""
        self._waiting.append(text)
        self._bytes += sys.getsizeof(text)
        self._stirred.set()
        if len(self._waiting) > QUEUE_FRAMES or self._bytes > QUEUE_BYTES:
            self.end(CloseConnection(1013, "too slow"))

    @property
    def full(self) -> bool:
        """Whether so much waits that no more is to be kept here."""
        return len(self._waiting) > FULL_FRAMES or self._bytes > FULL_BYTES

    @property
    def busy(self) -> bool:
        """Whether the reader has not nearly caught up."""
        return len(self._waiting) > BUSY_FRAMES or self._bytes > BUSY_BYTES

    async def drained(self) -> None:
        """Wait until the reader has nearly caught up."""
        while self.busy:
            self._drained.clear()
            await self._drained.wait()

    def complain(
        self, code: str, text: str, client_id: str | None = None, retry_after: float | None = None
    ) -> None:
        """Send an error frame; `retry_after` is in seconds."""
        more: Json = {} if client_id is None else {"clientId": client_id}
        if retry_after is not None:
            more["retryAfter"] = retry_after
        self.put(frame("error", code=code, error=text, **more))

    async def write(self) -> None:
        """Send what waits until cancelled. Raises Closing (1013) when the client takes nothing for long."""
        while True:
            began = self._clock()
            while self._waiting:
                text = self._waiting.popleft()
                self._bytes -= sys.getsizeof(text)
                try:
                    async with asyncio.timeout(STALLED):
                        await self._ws.send_text(text)
                except TimeoutError:
                    raise CloseConnection(1013, "too slow") from None
                if not self.busy:
                    self._drained.set()
                # (To send waits only when the client does not read: else one long queue would be one step.)
                if self._clock() - began > SLICE:
                    await asyncio.sleep(0)
                    began = self._clock()
            self._stirred.clear()
            await self._stirred.wait()

    # In

    async def read(self) -> None:
        """Fill the inbox until the client goes. Raises WebSocketDisconnect or Closing."""
        while True:
            event = await self._ws.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event.get("code", 1005))
            text = event.get("text")
            if text is None:
                raise CloseConnection(4400, "frames are JSON text", "bad_frame")
            wait = self._overdrawn()
            if self._tokens < -FRAMES_BURST:
                raise CloseConnection(4429, "too many frames", "too_fast")
            try:
                received = read(text)
            except FrameError as error:
                raise CloseConnection(4400, str(error), "bad_frame") from None
            except FieldError as error:
                self.complain(error.code, str(error), error.client_id)
                continue
            if wait > 0:
                self.complain("too_fast", "too many frames, wait a moment", received.client_id, wait)
            elif isinstance(received, Ping):
                self.put(frame("pong"))
            else:
                await self.inbox.put(received)

    def _overdrawn(self) -> float:
        """Seconds until a frame would be taken, 0 when this one is."""
        now = self._clock()
        self._tokens = min(FRAMES_BURST, self._tokens + (now - self._filled) * FRAMES_PER_SECOND)
        self._filled = now
        self._tokens -= 1
        return 0.0 if self._tokens >= 0 else round(-self._tokens / FRAMES_PER_SECOND + 0.05, 2)

    # Its end

    def end(self, closing: CloseConnection) -> None:
        """Close soon; the first reason stays."""
        if self.closing is None:
            self.closing = closing
            self._ended.set()

    async def ended(self) -> None:
        """Wait for `end`."""
        await self._ended.wait()

    async def close(self) -> None:
        """Say why and close, in bounded time also when nobody reads."""
        closing = self.closing
        if closing is None or self._ws.application_state is not WebSocketState.CONNECTED:
            return
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect, OSError):
            async with asyncio.timeout(CLOSE_WITHIN):
                if closing.error:
                    await self._ws.send_text(frame("error", code=closing.error, error=closing.reason))
                await self._ws.close(closing.code, closing.reason)
