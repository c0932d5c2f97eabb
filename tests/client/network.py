"""The network between a page and its servers: ports on loopback that count what passes, and cut at a chosen point.

An *item* is an HTTP request or response, or a data frame of a WebSocket. Control frames pass uncounted. Compression of
frames is taken out of the handshake, so that texts can be found in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal

from tests.client.background import Background
from tests.support.waiting import next_turn, pause

Direction = Literal["up", "down"]
"""`up` is from the page to a server."""
_UPGRADE = re.compile(rb"^upgrade: *websocket", re.IGNORECASE | re.MULTILINE)
_EXTENSIONS = re.compile(rb"^sec-websocket-extensions:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_DATA = (1, 2)
"""Opcodes of frames that begin a message."""


class Network(Background):
    """Forwarded ports on loopback, served by a thread of its own. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._plugged = True
        self._cut_at: tuple[Direction, int] | None = None
        self._passed: Counter[Direction] = Counter()
        self._hold_after = b""
        self.held = False
        """True once an item with the text of `hold_answers_to` has gone up."""
        self.delay = 0.0
        """Seconds by which each item to the page is late."""
        self.refuse_upgrades = False
        """True: each handshake of a WebSocket gets a 400, as from a proxy that knows none."""
        self.handshakes = 0
        """Handshakes of WebSockets so far, refused ones too."""

    def forward(self, port: int) -> int:
        """Forward to a port of this machine; return the port that forwards."""
        return self.do(self._listen(port))

    def cut_at(self, direction: Direction, n: int) -> None:
        """Reset all connections instead of passing the `n`-th item from now on in this direction; then work again."""
        self.do(self._arm((direction, n)))

    def never_cut(self) -> bool:
        """Take `cut_at` back; return True if the cut has not happened."""
        return self.do(self._arm(None)) is not None

    @property
    def was_cut(self) -> bool:
        """True if the cut of `cut_at` has happened."""
        return self._cut_at is None

    def hold_answers_to(self, text: str) -> None:
        """Pass nothing to the page once an item with this text has gone up, until `unplug`."""
        self.held, self._hold_after = False, text.encode()

    def unplug(self) -> None:
        """Reset every connection, and each new one."""
        self.do(self._unplug())

    def plug(self) -> None:
        """Let new connections through."""
        self._plugged = True

    def drop(self) -> None:
        """Reset every connection; new ones work."""
        self.unplug()
        self.plug()

    def freeze(self) -> None:
        """Pass nothing more on the connections that are open now, and close none; new ones work."""
        self.do(self._freeze())

    async def _listen(self, port: int) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not self._plugged:
                return writer.transport.abort()
            connection = _Connection(self)
            self._connections.add(connection)
            try:
                await connection.run(reader, writer, port)
            finally:
                self._connections.discard(connection)

        server = await asyncio.start_server(serve, "127.0.0.1")
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await self._unplug()
        await self._loop.shutdown_asyncgens()

    async def _arm(self, cut_at: tuple[Direction, int] | None) -> tuple[Direction, int] | None:
        before, self._cut_at = self._cut_at, cut_at
        self._passed.clear()
        return before

    async def _unplug(self) -> None:
        self._plugged = self.held = False
        self._hold_after = b""
        self._reset()
        while self._connections:
            await next_turn()

    async def _freeze(self) -> None:
        for connection in self._connections:
            connection.frozen = True

    def _reset(self) -> None:
        for connection in self._connections:
            connection.reset()

    async def passes(self, direction: Direction) -> bool:
        """Count an item; return False if the network is cut instead of passing it."""
        self._passed[direction] += 1
        if self._cut_at == (direction, self._passed[direction]):
            self._cut_at = None
            self._reset()
            return False
        if direction == "down" and self.delay:
            await pause(self.delay, "a slow answer")
        return True

    def look(self, data: bytes) -> None:
        """Look at what goes up for the text of `hold_answers_to`."""
        if self._hold_after and self._hold_after in data:
            self.held = True


class _Connection:
    """One connection, HTTP at first, and frames after the handshake of a WebSocket."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._speaker: Direction | None = None
        self._is_socket = False
        self._task = asyncio.current_task()
        self.frozen = False

    def reset(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Pass everything to a port and back, until one side closes or `reset` is called."""
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(far_writer)
            pumps = [
                asyncio.ensure_future(self._pump("up", reader, far_writer, writer)),
                asyncio.ensure_future(self._pump("down", far_reader, writer, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            for each in writers:
                each.close()  # what was written still goes out
        except (OSError, asyncio.CancelledError):
            for each in writers:
                each.transport.abort()

    async def _pump(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        near: asyncio.StreamWriter,
    ) -> None:
        network = self._network
        with contextlib.suppress(OSError):
            async for data, begins in self._items(direction, reader):
                if direction == "up" and begins and _UPGRADE.search(data) and not self._is_socket:
                    network.handshakes += 1
                    if network.refuse_upgrades:
                        near.write(_REFUSAL)
                        return
                if begins and not await network.passes(direction):
                    return
                if self.frozen or (direction == "down" and network.held):
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
                if direction == "up":
                    network.look(_unmasked(data) if self._is_socket else data)

    async def _items(
        self, direction: Direction, reader: asyncio.StreamReader
    ) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield what arrives in parts; True marks the part that begins an item."""
        while data := await reader.read(65536):
            if self._is_socket:
                async for item in _frames(data, reader):
                    yield item
                return
            begins, self._speaker = self._speaker != direction, direction
            if begins and _HEAD_END not in data:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    data += await reader.readuntil(_HEAD_END)
            if begins and direction == "up":
                data = _EXTENSIONS.sub(b"", data, count=1)
            if begins and direction == "down" and data.startswith(b"HTTP/1.1 101"):
                head, _, data = data.partition(_HEAD_END)
                self._is_socket = True
                yield head + _HEAD_END, True
                async for item in _frames(data, reader):
                    yield item
                return
            yield data, begins


async def _frames(data: bytes, reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield frame after frame, from `data` and what follows it; True marks those that begin a message."""
    while True:
        while (length := _frame_length(data)) is not None:
            yield data[:length], data[0] & 0x0F in _DATA
            data = data[length:]
        if not (more := await reader.read(65536)):
            return
        data += more


def _frame_length(data: bytes) -> int | None:
    """Return the bytes of the frame at the beginning of `data`, None if some are missing."""
    if len(data) < 2:
        return None
    size, head = data[1] & 0x7F, 2
    if size > 125:
        head += 2 if size == 126 else 8
        size = int.from_bytes(data[2:head], "big")
    length = head + (4 if data[1] & 0x80 else 0) + size
    return length if len(data) >= length else None


def _unmasked(frame: bytes) -> bytes:
    """Return the content of a client's frame."""
    head = {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)
    mask, content = frame[head : head + 4], frame[head + 4 :]
    return bytes(byte ^ key for byte, key in zip(content, itertools.cycle(mask), strict=False))
