"""Supabase's Realtime client, with a short path for the frames that carry wake-ups.

The client validates each frame against nine models and formats it for a disabled log: 0.3 ms of the event loop for
a row (realtime 2.34.1). Rows arrive dozens at a time, while claims wait for the loop. This module reads such a frame as
JSON (0.01 ms) and yields to the loop after each millisecond of frames. It passes all other frames to the client.

The client ignores replies to its own heartbeats and leaves tasks behind when it is closed. This module is the only one
that uses its private names.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol, cast

import orjson
import structlog
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient
from realtime import types as rt
from realtime._async.push import AsyncPush
from websockets.asyncio.client import ClientConnection, connect

from gre_bridge.config.proxies import proxy_for

log = structlog.get_logger()

WAKEUP_EVENTS = frozenset({"broadcast", "postgres_changes"})
"""Events that go to the frame handler; the client does not see them."""
YIELD_AFTER = 0.001
"""Seconds of frames after which the reader yields to the event loop."""


class FrameHandler(Protocol):
    """Receives the frames of WAKEUP_EVENTS."""

    def on_frame(self, topic: str, event: str, payload: dict[str, Any]) -> None:
        """Take a frame; must not raise. The content of `payload` is untrusted."""


class WakeupClient(AsyncRealtimeClient):
    """A client that gives the frames of WAKEUP_EVENTS to a handler."""

    def __init__(self, *args: Any, handler: FrameHandler, **options: Any) -> None:
        """`args` and `options` are those of AsyncRealtimeClient."""
        super().__init__(*args, **options)
        self._handler = handler
        # The client drops replies to heartbeats unless a channel object of this name takes them.
        self._phoenix = self.channels["phoenix"] = AsyncRealtimeChannel(self, "phoenix")

    def opened(self) -> tuple[ClientConnection, asyncio.Task[None]]:
        """Return the socket and the task that reads from it, after `connect`."""
        assert self._ws_connection is not None
        assert self._listen_task is not None
        return self._ws_connection, self._listen_task

    def heartbeat(self, limit: float) -> AsyncPush:
        """Return a heartbeat to send, which waits for its reply for `limit` seconds; destroy it afterwards."""
        return AsyncPush(self._phoenix, rt.ChannelEvents.heartbeat, {}, math.ceil(limit))

    async def shut_down(
        self, socket: ClientConnection | None, channels: Iterable[AsyncRealtimeChannel], limit: float
    ) -> None:
        """Close `socket` and end the tasks of `channels`, in at most twice `limit` seconds even if the peer is gone."""
        owned = [self._listen_task, self._heartbeat_task]
        for channel in (self._phoenix, *channels):
            pushes = (channel.join_push, *channel.messages_waiting_for_ack.values())
            owned += [channel.rejoin_timer.timer, *(push.timeout_task for push in pushes)]
            owned += channel._background_tasks  # noqa: SLF001 - the client does not end them
        running = [task for task in owned if task is not None and not task.done()]
        for task in running:
            task.cancel()
        try:
            async with asyncio.timeout(limit):
                await self.close()
        except Exception as error:  # noqa: BLE001 - the socket is aborted in any case
            log.debug("realtime_close_failed", error=type(error).__name__)
        finally:
            if socket is not None:
                socket.transport.abort()
        if running:
            await asyncio.wait(running, timeout=limit)

    async def connect(self) -> None:
        """Connect once, through the proxy that PostgREST and the sinks use too. Raises what websockets raises.

        The client's own method leaves the choice to websockets, which ignores ALL_PROXY.
        """
        url = self.endpoint_url()
        self._ws_connection = await connect(url, open_timeout=self.timeout, proxy=proxy_for(url))
        await self._on_connect()

    async def _listen(self) -> None:
        if self._ws_connection is not None:
            self._ws_connection = cast(
                "ClientConnection", _FrameInterceptor(self._ws_connection, self._intercept)
            )
        await super()._listen()

    def _intercept(self, frame: str | bytes) -> bool:
        """Give a frame of WAKEUP_EVENTS to the handler. Return False if it is the client's."""
        try:
            message = orjson.loads(frame)
        except ValueError:
            return False
        match message:
            case {"event": str(event), "topic": str(topic), "payload": dict(payload)} if (
                event in WAKEUP_EVENTS
            ):
                self._handler.on_frame(topic, event, payload)
                return True
        return False


class _FrameInterceptor:
    """A socket that yields only the frames that `intercept` does not take."""

    def __init__(self, socket: ClientConnection, intercept: Callable[[str | bytes], bool]) -> None:
        self._socket = socket
        self._intercept = intercept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        yielded_at = time.monotonic()
        async for frame in self._socket:
            if not self._intercept(frame):
                yield frame
            # Buffered frames are read without an iteration of the loop. Yielding for each frame would be too often: when
            # iterations are long, the frames pile up, and the reply to a heartbeat waits behind them.
            if time.monotonic() - yielded_at >= YIELD_AFTER:
                await asyncio.sleep(0)
                yielded_at = time.monotonic()
