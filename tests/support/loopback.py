"""Loopback: HTTP clients for this machine, and real servers for tests of clients that answer or misbehave byte by byte."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from aiohttp import web

FIXED_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections (32768 to 60999 by default)."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For each client of httpx: this context trusts nobody. httpx's own reads all certificates, for 50 ms of CPU."""
PATIENT = httpx.Timeout(60)
"""Seconds for each step of a request: a bound on hanging, not on slowness. httpx's own five pass on a busy machine."""
HTTP = httpx.Client(
    trust_env=False, verify=NO_TLS, timeout=PATIENT, limits=httpx.Limits(max_keepalive_connections=0)
)
"""For single requests to this machine, each over a connection of its own: `httpx.get` would make a client for each."""

Bytes = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def free_port() -> int:
    """Return a port for a server that is started again at the same address.

    A port that the kernel chooses is one that it may give to an outgoing connection of any process meanwhile.
    """
    while True:
        port = random.choice(FIXED_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire; `query` is decoded, `headers` find names in any case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass(frozen=True)
class Reply:
    """An answer; with `hang` it never comes, with `gone` the connection is closed instead."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    gone: bool = False


HANG = Reply(hang=True)
GONE = Reply(gone=True)


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer with a JSON body."""
    return Reply(status, orjson.dumps(value), {"Content-Type": "application/json", **(headers or {})})


@asynccontextmanager
async def serving(
    handler: Callable[[Request], Reply], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server whose requests `handler` answers; its port."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        content = await request.read()
        found = Request(request.method, request.path, request.query, request.headers, content)
        reply = handler(found)
        if reply.hang:
            await asyncio.Event().wait()
        if reply.gone:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_bytes(serve: Bytes) -> AsyncIterator[int]:
    """A server that does what `serve` does with each connection; leaving waits until they are closed."""
    handlers = set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if handlers:
            await asyncio.wait(handlers, timeout=5)


def saying(answer: bytes) -> Bytes:
    """Answer the first request with these bytes and close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


@contextmanager
def closed_port() -> Iterator[int]:
    """A port without a listener."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def unaccepting_port() -> Iterator[int]:
    """A port with a full backlog: the next connection is neither accepted nor refused."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())
            yield server.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and requests and sends nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


HALF_A_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
GARBAGE = b"\x00\x01 this is no HTTP \r\n\r\n"
