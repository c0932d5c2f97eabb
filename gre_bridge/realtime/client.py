"""The client of Realtime, with a shorter way for the frames that ring.

The client tries each frame against nine models, and writes it out for a log that is off: 0.3 ms of the loop for a
row (realtime 2.34.1), and rows come by the poll, dozens at once, while somebody's claim waits for the loop. Here such a
frame is read as JSON (0.01 ms), and after each ms of them everybody else has a turn. All other frames are the client's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import orjson
from realtime import AsyncRealtimeClient
from websockets.asyncio.client import ClientConnection, connect

from gre_bridge.config.proxies import proxy_for

RINGING = frozenset({"broadcast", "postgres_changes"})
"""Events that the client does not see."""
TURN = 0.001
"""Seconds of frames after which everybody else has a turn."""


class WakeupClient(AsyncRealtimeClient):
    """A client that hands what rings to `on_frame(topic, event, payload)`, which must not raise.

    The payload is an object; what is in it is as untrusted as any frame.
    """

    def __init__(
        self, *args: Any, on_frame: Callable[[str, str, dict[str, Any]], None], **options: Any
    ) -> None:
        """As AsyncRealtimeClient's, and `on_frame`."""
        super().__init__(*args, **options)
        self._on_frame = on_frame

    async def connect(self) -> None:
        """Connect once, through the proxy that PostgREST and the sinks use too. Raises what websockets raises.

        The client's own method leaves the choice to websockets, which ignores ALL_PROXY.
        """
        url = self.endpoint_url()
        self._ws_connection = await connect(url, open_timeout=self.timeout, proxy=proxy_for(url))
        await self._on_connect()

    async def _listen(self) -> None:
        if self._ws_connection is not None:
            self._ws_connection = cast("ClientConnection", _FrameInterceptor(self._ws_connection, self._take))
        await super()._listen()

    def _take(self, frame: str | bytes) -> bool:
        """Pass a frame on if it rings, and say whether it did."""
        try:
            message = orjson.loads(frame)
        except ValueError:
            return False
        match message:
            case {"event": str(event), "topic": str(topic), "payload": dict(payload)} if event in RINGING:
                self._on_frame(topic, event, payload)
                return True
        return False


class _FrameInterceptor:
    """A socket from which only those frames are read that `take` leaves."""

    def __init__(self, socket: ClientConnection, take: Callable[[str | bytes], bool]) -> None:
        self._socket = socket
        self._take = take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        turned = time.monotonic()
        async for frame in self._socket:
            if not self._take(frame):
                yield frame
            # Frames that are there already are read without a turn of the loop. Not a turn for each: where turns are
            # long, those behind would pile up, and the reply to a heartbeat with them.
            if time.monotonic() - turned >= TURN:
                await asyncio.sleep(0)
                turned = time.monotonic()
