"""Attacks of strangers and players on the API, as separate programs: `python -m tests.chaos.attackers NAME URL TOKEN SESSION`.

Each goes on until it is killed, and comes back when it is thrown out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.uri import parse_uri

from tests.chaos.http_attackers import histories, pipelining, slow_headers
from tests.support.waiting import let_pass, pause

PER_SECOND = 1_600_000
"""Bytes a second of a flood."""
CHUNK = 64 * 1024
AGAIN = 0.05
"""Seconds before a disconnected attacker connects again."""

Attacker = Callable[[str, str, str], Awaitable[None]]


def opened(url: str, *, buffer: int = 0) -> socket.socket:
    """A WebSocket with frames made by hand; `buffer` is the size of the kernel's receive buffer."""
    address = f"ws{url.removeprefix('http')}/ws"
    protocol = ClientProtocol(parse_uri(address))
    host, port = url.removeprefix("http://").split(":")
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(10)
    sock.connect((host, int(port)))
    protocol.send_request(protocol.connect())
    sock.sendall(b"".join(protocol.data_to_send()))
    answer = b""
    while b"\r\n\r\n" not in answer:
        got = sock.recv(1)
        if not got:
            raise ConnectionError("refused")
        answer += got
    if b" 101 " not in answer.split(b"\r\n")[0]:
        raise ConnectionError("refused")
    return sock


def text(body: object) -> bytes:
    """A masked text frame."""
    data = json.dumps(body).encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2)
    return b"\x81" + size + bytes(4) + data


def _flood(url: str, first: bytes, frame: bytes) -> None:
    """Send frames on one connection at a time, reading what comes, at PER_SECOND."""
    chunk = frame * (CHUNK // len(frame))
    while True:
        with contextlib.suppress(OSError), opened(url) as sock:
            sock.sendall(first)
            sock.setblocking(False)
            due = time.monotonic()
            while True:
                with contextlib.suppress(BlockingIOError):
                    if not sock.recv(1 << 20):
                        break
                sock.settimeout(5)
                sock.sendall(chunk)
                sock.setblocking(False)
                due += len(chunk) / PER_SECOND
                let_pass(due - time.monotonic(), "the rate of bytes")
        let_pass(AGAIN, "before the next connection")


async def pings(url: str, _token: str, _session: str) -> None:
    """One WebSocket without a token: empty pings, 1.6 MB a second."""
    await asyncio.to_thread(_flood, url, b"", b"\x89\x80\0\0\0\0")


async def fragments(url: str, _token: str, _session: str) -> None:
    """One WebSocket without a token: empty fragments of one message, 1.6 MB a second."""
    await asyncio.to_thread(_flood, url, b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0")


async def typing(url: str, token: str, session: str) -> None:
    """Twenty sockets of one player: typing on and off, as fast as frames are allowed."""

    async def one() -> None:
        on = False
        while True:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException):
                async with connect(f"ws{url.removeprefix('http')}/ws", proxy=None) as ws:
                    await ws.send(json.dumps({"type": "authenticate", "token": token}))
                    reading = asyncio.create_task(_read_all(ws))
                    try:
                        while True:
                            on = not on
                            await ws.send(json.dumps({"type": "typing", "sessionId": session, "typing": on}))
                            await pause(1 / 19, "just below the limit of frames per second")
                    finally:
                        reading.cancel()
            await pause(AGAIN, "before the next connection")

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(one())


async def _read_all(ws: object) -> None:
    with contextlib.suppress(WebSocketException):
        async for _ in ws:  # type: ignore[attr-defined]
            pass


async def unread(url: str, token: str, session: str) -> None:
    """Twenty sockets of one player that ask for its whole history and read nothing."""

    def one() -> None:
        while True:
            with contextlib.suppress(OSError), opened(url, buffer=4096) as sock:
                sock.sendall(text({"type": "authenticate", "token": token, "since": {session: 0}}))
                sock.settimeout(60)
                let_pass(35, "the answer is not read")
            let_pass(AGAIN, "before the next connection")

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(asyncio.to_thread(one))


ATTACKERS: dict[str, Attacker] = {
    "pings": pings, "fragments": fragments, "typing": typing, "unread": unread,
    "pipelining": pipelining, "histories": histories, "slow_headers": slow_headers,
}  # fmt: skip

if __name__ == "__main__":
    asyncio.run(ATTACKERS[sys.argv[1]](*sys.argv[2:]))
