"""Hostile peers: raw connections to the API's port, for the tests of its limits and for `make chaos`."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
FILL = b"x" * 16_384


def raw(url: str, *, receive_buffer: int | None = None) -> socket.socket:
    """A connection to the server at `url`; sending and receiving time out after a minute."""
    parts = urlsplit(url)
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect((parts.hostname, parts.port))
    return sock


def answer(sock: socket.socket, within: float = 60.0) -> bytes:
    """Return all that the server sends until it closes the connection, or until the time limit."""
    found = b""
    sock.settimeout(within)
    with contextlib.suppress(OSError):
        while chunk := sock.recv(65_536):
            found += chunk
    return found


def closes(sock: socket.socket, within: float) -> bool:
    """Return True if the server ends the connection within the time."""
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            if not sock.recv(65_536):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def send_all(sock: socket.socket, pieces: Iterator[bytes], most: int, stalls: float = 1.0) -> int:
    """Send the pieces until the server closes, accepts nothing for `stalls` seconds, or has accepted `most` bytes."""
    sock.settimeout(stalls)
    sent = 0
    with contextlib.suppress(OSError):
        for piece in pieces:
            left = memoryview(piece)
            while left:
                done = sock.send(left)
                left = left[done:]
                sent += done
            if sent >= most:
                break
    return sent


def _numbered(line: bytes) -> Iterator[bytes]:
    for n in itertools.count(0, 500):
        yield b"".join(line % (n + i) for i in range(500))


def _then(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    return itertools.chain([first], rest)


def endless(token: str | None = None) -> dict[str, Iterator[bytes]]:
    """Endless requests, each with another part of a request that grows."""
    authorized = f"Authorization: Bearer {token}\r\n".encode() if token else b""
    host = b"Host: x\r\n" + authorized
    chunked = b"POST /api/gre-chat/send HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    more = itertools.repeat
    return {
        "method": more(b"G" * 16_384),
        "url": _then(b"GET /", more(FILL)),
        "header name": _then(b"GET /healthz HTTP/1.1\r\n" + host, more(FILL)),
        "header value": _then(b"GET /healthz HTTP/1.1\r\n" + host + b"X-Long: ", more(FILL)),
        "header list": _then(b"GET /healthz HTTP/1.1\r\n" + host, _numbered(b"X-%d: a\r\n")),
        "headers of an upgrade": _then(UPGRADE, _numbered(b"X-%d: a\r\n")),
        "trailers": _then(chunked + b"1\r\nx\r\n0\r\n", _numbered(b"X-%d: a\r\n")),
        "chunk extension": _then(chunked + b"1;", more(FILL)),
        "chunks of a byte": _then(chunked, more(b"1\r\nx\r\n" * 2000)),
        "body": _then(chunked, more(b"4000\r\n" + FILL + b"\r\n")),
        "body of a GET": _then(b"GET /healthz HTTP/1.1\r\n" + host + b"Content-Length: 99999999\r\n\r\n", more(FILL)),
        "pipelined requests": more(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 400),
        "bytes behind an upgrade": _then(UPGRADE + b"\r\n", more(FILL)),
    }  # fmt: skip


def memory(pid: int) -> int:
    """The memory of a process and its children, in bytes."""
    process = psutil.Process(pid)
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def established(pid: int, port: int) -> int:
    """The number of connections to its port that a process and its children have."""
    process = psutil.Process(pid)
    found: set[Any] = set()
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {
                c.raddr
                for c in one.net_connections("tcp")
                if c.laddr and c.laddr.port == port and c.raddr and c.status != psutil.CONN_LISTEN
            }
    return len(found)
