"""Frames to and from one client: a bounded queue out, a bounded rate in, and the close.

It must not know who the client is, nor what its frames mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gre_bridge.api.pacing import TokenBucket
from gre_bridge.api.server.websocket_protocol import text_frame
from gre_bridge.api.ws.frames import ClientFrame, FieldError, FrameError, Ping, frame, parse_frame
from gre_bridge.db.types import Json

QUEUE_FRAMES, QUEUE_BYTES = 2000, 4 * 1024 * 1024
"""The most that may be queued: answers to a client that sends requests and does not read."""
FULL_FRAMES, FULL_BYTES = 500, 256 * 1024
"""The most that may be queued of other people's news; the rest is read from the database once this is sent."""
BUSY_FRAMES, BUSY_BYTES = 100, 64 * 1024
"""The queue above which `wait_drained` waits and fan-out pauses."""
WRITE_TIMEOUT = 30.0
"""Seconds in which a client may read nothing of its queue."""
YIELD_AFTER = 0.005
"""Seconds of writing after which other tasks run."""
INBOX_SIZE = 64
FRAMES_PER_SECOND, FRAMES_BURST = 20.0, 100.0
CLOSE_TIMEOUT = 2.0


class CloseConnection(Exception):  # noqa: N818 - not an error, the way out
    """Ends the connection with a close code; a non-empty `error` is the code of an error frame before it."""

    def __init__(self, code: int, reason: str, error: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


class ClientTransport:
    """Frames to and from one accepted WebSocket."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        offer: Callable[[bytes], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`offer` writes the bytes of a frame at once, or returns False if it cannot; without it each frame is queued."""
        self._websocket = websocket
        self._offer = offer
        self._clock = clock
        self._queue: deque[str] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()
        self._drained = asyncio.Event()
        self._budget = TokenBucket(FRAMES_PER_SECOND, FRAMES_BURST, clock())
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done after `end`."""
        self.closing: CloseConnection | None = None
        """Why the connection ends; None if the client closed it."""
        self.inbox: asyncio.Queue[ClientFrame] = asyncio.Queue(INBOX_SIZE)
        """The client's frames other than pings."""

    # Out

    def put(self, text: str) -> None:
        """Send a frame, or queue it while the client does not read. Ends the connection (1013) if the queue is too long."""
        # Without a queue no frame is on its way through the writer, so this one overtakes none.
        if (
            not self._queue
            and self._offer is not None
            and self.closing is None
            and self._offer(text_frame(text))
        ):
            return
        self._queue.append(text)
        self._queued_bytes += sys.getsizeof(text)
        self._queued.set()
        if len(self._queue) > QUEUE_FRAMES or self._queued_bytes > QUEUE_BYTES:
            self.end(CloseConnection(1013, "too slow"))

    @property
    def full(self) -> bool:
        """True if no more of other people's news should be queued."""
        return len(self._queue) > FULL_FRAMES or self._queued_bytes > FULL_BYTES

    @property
    def busy(self) -> bool:
        """True if the client has much left to read."""
        return len(self._queue) > BUSY_FRAMES or self._queued_bytes > BUSY_BYTES

    async def wait_drained(self) -> None:
        """Wait until the client has read nearly everything."""
        while self.busy:
            self._drained.clear()
            await self._drained.wait()

    def send_error(
        self,
        code: str,
        text: str,
        client_id: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """Queue an error frame; `retry_after` is in seconds, `details` are for programs."""
        extra: Json = {} if client_id is None else {"clientId": client_id}
        if retry_after is not None:
            extra["retryAfter"] = retry_after
        if details is not None:
            extra["details"] = details
        self.put(frame("error", code=code, error=text, **extra))

    async def run_writer(self) -> None:
        """Send the queue until cancelled. Raises CloseConnection (1013) if the client reads nothing for WRITE_TIMEOUT."""
        while True:
            started = self._clock()
            while self._queue:
                text = self._queue[0]
                try:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await self._websocket.send_text(text)
                except TimeoutError:
                    raise CloseConnection(1013, "too slow") from None
                self._queue.popleft()
                self._queued_bytes -= sys.getsizeof(text)
                if not self.busy:
                    self._drained.set()
                # send_text waits only if the client does not read, so a long queue would block the loop.
                if self._clock() - started > YIELD_AFTER:
                    await asyncio.sleep(0)
                    started = self._clock()
            self._queued.clear()
            await self._queued.wait()

    # In

    async def run_reader(self) -> None:
        """Fill the inbox until the client disconnects. Raises WebSocketDisconnect or CloseConnection."""
        while True:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event.get("code", 1005))
            text = event.get("text")
            if text is None:
                raise CloseConnection(4400, "frames are JSON text", "bad_frame")
            self._budget.overdraw(self._clock())
            if self._budget.tokens < -FRAMES_BURST:
                raise CloseConnection(4429, "too many frames", "too_fast")
            try:
                received = parse_frame(text)
            except FrameError as error:
                raise CloseConnection(4400, str(error), "bad_frame") from None
            except FieldError as error:
                self.send_error(error.code, str(error), error.client_id)
                continue
            if (wait := self._budget.wait(0)) > 0:
                self.send_error("too_fast", "too many frames, wait a moment", received.client_id, wait)
            elif isinstance(received, Ping):
                self.put(frame("pong"))
            else:
                await self.inbox.put(received)

    # The end

    def end(self, closing: CloseConnection) -> None:
        """Close soon; the first reason counts."""
        if self.closing is None:
            self.closing = closing
            self.ended.set_result(None)

    async def close(self) -> None:
        """Send the error frame and close, within CLOSE_TIMEOUT seconds."""
        closing = self.closing
        if closing is None or self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect, OSError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if closing.error:
                    await self._websocket.send_text(frame("error", code=closing.error, error=closing.reason))
                await self._websocket.close(closing.code, closing.reason)
