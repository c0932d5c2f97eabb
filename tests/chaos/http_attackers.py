"""Attacks of strangers and players over HTTP. Each runs until it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor

from tests.support.hostile import raw, send_all
from tests.support.waiting import let_pass, pause


def _pipeline(url: str) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 400
    while True:
        with contextlib.suppress(OSError), contextlib.closing(raw(url, receive_buffer=4096)) as sock:
            send_all(sock, itertools.repeat(request), 12_000_000, 8)
        let_pass(0.05, "before the next connection")


async def pipelining(url: str, _token: str, _session: str) -> None:
    """One connection without a token: requests one after the other, up to 12 MB, and nothing is read."""
    await asyncio.to_thread(_pipeline, url)


async def histories(url: str, token: str, _session: str) -> None:
    """Forty connections of one player that ask for its history and read nothing."""
    request = (
        f"GET /api/chat-history/77?limit=500 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    )

    def one() -> None:
        while True:
            with contextlib.suppress(OSError), contextlib.closing(raw(url, receive_buffer=4096)) as sock:
                sock.sendall(request.encode())
                let_pass(35, "the answer is not read")
            let_pass(0.05, "before the next connection")

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(40) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, one) for _ in range(40)))


async def slow_headers(url: str, _token: str, _session: str) -> None:
    """Two hundred connections without a token that send a header a second and never end."""

    async def one() -> None:
        host, port = url.removeprefix("http://").split(":")
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
                    while not writer.is_closing():
                        writer.write(b"X: a\r\n")
                        await writer.drain()
                        await pause(1, "between two header lines")
                finally:
                    writer.transport.abort()
            await pause(0.05, "before the next connection")

    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(one())
