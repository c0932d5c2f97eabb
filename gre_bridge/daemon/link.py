"""The private connection between the two processes of a daemon: requests, responses and hints.

It is a pair of Unix datagram sockets that the supervisor creates and keeps. They have no name, so no other process can
connect, and a restarted process continues to use them. Every datagram may be lost; each request has a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Generator
from typing import Protocol

import structlog

log = structlog.get_logger()


class RequestHandler(Protocol):
    """Answers the requests of the other process."""

    async def answer(self, request: str) -> bytes:
        """Return the response."""


class HintListener(Protocol):
    """Receives the hints of the other process."""

    def on_hint(self, hint: str) -> None:
        """Handle a hint. Delivery is not guaranteed."""


_BUFFER = 512 * 1024
_CHUNK = 32 * 1024
_REQUEST, _RESPONSE, _HINT = b"?", b"!", b"h"
_RESPONSE_HEAD = struct.Struct("!16sHH")
_RESEND_AFTER = 0.005
"""Seconds after which a datagram is sent again when the socket's buffer was full."""
_RESPONSE_TIMEOUT = 2.0
_MAX_RESPONSES = 8


def pair() -> tuple[socket.socket, socket.socket]:
    """Create the two ends."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in ends:
        end.setblocking(False)
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends


class Link:
    """One end, used by one process."""

    def __init__(self, end: socket.socket) -> None:
        """The creator of `end` closes it."""
        self._end = end
        self._pending: dict[bytes, tuple[asyncio.Future[bytes], dict[int, bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._handler: RequestHandler | None = None
        self._listener: HintListener | None = None

    @contextlib.contextmanager
    def serving(self, handler: RequestHandler, listener: HintListener | None = None) -> Generator[None]:
        """Answer requests and pass hints on, in a running loop, until the block ends."""
        loop = asyncio.get_running_loop()
        self._handler, self._listener = handler, listener
        loop.add_reader(self._end.fileno(), self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._end.fileno())
            for task in self._answering:
                task.cancel()

    async def request(self, text: str, *, timeout: float) -> bytes | None:
        """Return the response of the other process; None if it does not arrive within `timeout` seconds."""
        number = os.urandom(16)
        arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[number] = (arrived, {})
        try:
            async with asyncio.timeout(timeout):
                if not self._send(_REQUEST + number + text.encode()):
                    return None  # the buffer is full: it reads nothing
                return await arrived
        except TimeoutError:
            return None
        finally:
            del self._pending[number]

    def hint(self, text: str) -> None:
        """Send a hint, which may be lost."""
        self._send(_HINT + text.encode())

    def _send(self, datagram: bytes) -> bool:
        try:
            self._end.send(datagram)
        except OSError:
            return False
        return True

    def _read(self) -> None:
        # A bounded number for each iteration of the loop, so that the other process cannot block this one.
        for _ in range(16):
            try:
                datagram = self._end.recv(2 * _CHUNK)
            except OSError:
                return
            kind, rest = datagram[:1], datagram[1:]
            if kind == _REQUEST and len(self._answering) < _MAX_RESPONSES:
                task = asyncio.get_running_loop().create_task(self._reply(rest[:16], rest[16:].decode()))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            elif kind == _RESPONSE:
                self._receive(rest)
            elif kind == _HINT and self._listener is not None:
                self._listener.on_hint(rest.decode())

    def _receive(self, rest: bytes) -> None:
        number, index, count = _RESPONSE_HEAD.unpack_from(rest)
        request = self._pending.get(number)
        if request is None:
            return  # a request of the previous process, or a late response
        arrived, parts = request
        parts[index] = rest[_RESPONSE_HEAD.size :]
        if len(parts) == count and not arrived.done():
            arrived.set_result(b"".join(parts[n] for n in range(count)))

    async def _reply(self, number: bytes, text: str) -> None:
        assert self._handler is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RESPONSE_TIMEOUT):
                try:
                    response = await self._handler.answer(text)
                except Exception as error:
                    log.error("peer_request_failed", request=text, exc_info=error)
                    return
                parts = [response[at : at + _CHUNK] for at in range(0, len(response), _CHUNK)] or [b""]
                for index, part in enumerate(parts):
                    datagram = _RESPONSE + _RESPONSE_HEAD.pack(number, index, len(parts)) + part
                    while not self._send(datagram):  # noqa: ASYNC110 - no event reports room in the buffer
                        await asyncio.sleep(_RESEND_AFTER)
