"""The private line between the two processes of one daemon: questions, answers and hints.

It is one pair of Unix datagram sockets that the supervisor makes and keeps: it has no name, so nobody else reaches
it, and a process that is started again goes on using it. Whatever is on it may be lost; nobody waits longer than
the bound that he names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Generator

import structlog

log = structlog.get_logger("gre.daemon")

Answer = Callable[[str], Awaitable[bytes]]
Hint = Callable[[str], None]

_BUFFER = 512 * 1024
_CHUNK = 32 * 1024
_ASK, _TELL, _HINT = b"?", b"!", b"h"
_TELL_HEAD = struct.Struct("!16sHH")
_AGAIN = 0.005
"""Seconds after which a datagram is sent again for which there was no room."""
_ANSWER_WITHIN = 2.0
_ANSWERS_AT_ONCE = 8


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in ends:
        end.setblocking(False)
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends


class Link:
    """One process's end."""

    def __init__(self, end: socket.socket) -> None:
        """`end` is closed by whoever made it."""
        self._end = end
        self._questions: dict[bytes, tuple[asyncio.Future[bytes], dict[int, bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._answer: Answer | None = None
        self._hint: Hint = lambda _: None

    @contextlib.contextmanager
    def serving(self, answer: Answer, on_hint: Hint = lambda _: None) -> Generator[None]:
        """Answer the other process's questions, in a running loop, until the block ends."""
        loop = asyncio.get_running_loop()
        self._answer, self._hint = answer, on_hint
        loop.add_reader(self._end.fileno(), self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._end.fileno())
            for task in self._answering:
                task.cancel()

    async def ask(self, what: str, *, within: float) -> bytes | None:
        """The other process's answer; None when there is none `within` so many seconds."""
        number = os.urandom(16)
        arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[number] = (arrived, {})
        try:
            async with asyncio.timeout(within):
                if not self._send(_ASK + number + what.encode()):
                    return None  # it reads nothing
                return await arrived
        except TimeoutError:
            return None
        finally:
            del self._questions[number]

    def hint(self, what: str) -> None:
        """Tell the other process something that may be lost."""
        self._send(_HINT + what.encode())

    def _send(self, datagram: bytes) -> bool:
        try:
            self._end.send(datagram)
        except OSError:
            return False
        return True

    def _read(self) -> None:
        # A bounded number for each turn of the loop: the other process must not keep this one busy.
        for _ in range(16):
            try:
                datagram = self._end.recv(2 * _CHUNK)
            except OSError:
                return
            kind, rest = datagram[:1], datagram[1:]
            if kind == _ASK and len(self._answering) < _ANSWERS_AT_ONCE:
                task = asyncio.get_running_loop().create_task(self._reply(rest[:16], rest[16:].decode()))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            elif kind == _TELL:
                self._told(rest)
            elif kind == _HINT:
                self._hint(rest.decode())

    def _told(self, rest: bytes) -> None:
        number, index, count = _TELL_HEAD.unpack_from(rest)
        question = self._questions.get(number)
        if question is None:
            return  # asked by the process that was here before, or answered too late
        arrived, parts = question
        parts[index] = rest[_TELL_HEAD.size :]
        if len(parts) == count and not arrived.done():
            arrived.set_result(b"".join(parts[n] for n in range(count)))

    async def _reply(self, number: bytes, what: str) -> None:
        assert self._answer is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_WITHIN):
                try:
                    answer = await self._answer(what)
                except Exception as error:
                    log.error("a question of the other process failed", exc_info=error)
                    return
                parts = [answer[at : at + _CHUNK] for at in range(0, len(answer), _CHUNK)] or [b""]
                for index, part in enumerate(parts):
                    datagram = _TELL + _TELL_HEAD.pack(number, index, len(parts)) + part
                    while not self._send(datagram):  # noqa: ASYNC110 - there is no room, and no event that tells of it
                        await asyncio.sleep(_AGAIN)
