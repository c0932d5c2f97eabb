"""A TCP proxy between a worker and a service, with faults.

`cut` drops every byte (new connections are accepted and never served, as by a packet filter), `freeze` does so for the
open connections only (a firewall that lost its state), `unplug` refuses connections and resets the open ones, `slow`
delays every byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import pause


class TcpProxy:
    """One forwarded port on loopback, served by a thread of its own. Its methods may be called from any thread."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._delay = 0.0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        self._whole.set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._unplug())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Forward nothing from now on, without closing a connection."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def freeze(self) -> None:
        """Forward nothing on the connections that are open now, also after `heal`; new ones work."""
        self._loop.call_soon_threadsafe(lambda: self._frozen.update(self._pumps))

    def unplug(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._unplug())

    def slow(self, seconds: float) -> None:
        """Delay every byte by so many seconds, in either direction."""
        self._delay = seconds

    def heal(self) -> None:
        """Forward everything again; cut connections continue where they stopped."""
        self._delay = 0.0
        self._loop.call_soon_threadsafe(self._whole.set)
        if self._server is None:
            self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        # With the protocol named: asyncio sets TCP_NODELAY only then.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listening)

    async def _unplug(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        try:
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                there = asyncio.ensure_future(self._pump(reader, far_writer, task))
                back = asyncio.ensure_future(self._pump(far_reader, writer, task))
                try:
                    await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
            finally:
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the connection was reset
        finally:
            writer.transport.abort()
            self._pumps.discard(task)
            self._frozen.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, owner: asyncio.Task[None]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._delay:
                    await pause(self._delay, "latency of the network")
                await self._whole.wait()
                if owner in self._frozen:
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
