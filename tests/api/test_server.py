"""The end of connections: of a WebSocket, whatever its client does, and of all when the daemon stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import websockets
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from structlog.testing import capture_logs

from gre_bridge.api.server import serve as server
from gre_bridge.api.server import websocket_protocol
from gre_bridge.config.settings import Settings
from gre_bridge.daemon import listeners
from gre_bridge.errors import ConfigurationError
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.waiting import pause, until

Endpoint = Callable[[WebSocket], Awaitable[None]]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def served() -> AsyncIterator[Serve]:
    """Serve an endpoint until the test ends; yield its address."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(endpoint: Endpoint | None = None, **more: Any) -> str:
        settings = Settings(
            supabase_url="https://p.supabase.co",
            supabase_service_key=SecretStr("key"),
            http_port=0,
            **more,
        )

        async def whoami(request: Request) -> JSONResponse:
            assert request.client
            return JSONResponse([request.client.host, request.url.scheme])

        routes = [Route("/", whoami), *([WebSocketRoute("/ws", endpoint)] if endpoint else [])]
        bound = listeners.listen(settings.model_copy(update={"admin_port": 0}), api=True)
        bound.admin.close()
        sock = bound.api
        assert sock is not None
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        tasks.append(
            asyncio.create_task(server.serve(Starlette(routes=routes), settings=settings, sock=sock))
        )
        serve.task = tasks[-1]  # type: ignore[attr-defined]
        async with asyncio.timeout(60), httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await http.get(f"http://{address}/")
                    return address
                await pause(0.01, "before the next attempt")

    yield serve
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_connections_that_come_at_once_are_served_and_not_cut(served: Serve) -> None:
    """They are twice as many as the instance may have at a time, and their requests are there when it begins to accept."""
    host, _, port = (await served(max_connections=300)).partition(":")
    clients = []
    for _ in range(600):  # the loop, and so the server, waits meanwhile
        client = socket.create_connection((host, int(port)), 60)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        client.setblocking(False)
        clients.append(client)

    async def answer(client: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            return await reader.readline()
        except ConnectionError:
            return b"cut"
        finally:
            writer.close()

    async with asyncio.timeout(60):
        assert set(await asyncio.gather(*map(answer, clients))) == {b"HTTP/1.1 200 OK\r\n"}


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(str(len(await websocket.receive_text())))


async def closed(client: websockets.ClientConnection) -> tuple[int | None, str | None]:
    """Return the server's close code and reason."""
    async with asyncio.timeout(60):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code, client.close_reason


async def test_a_frame_may_be_64_kb_and_no_longer(served: Serve) -> None:
    address = await served(echo)
    async with websockets.connect(f"ws://{address}/ws", max_size=None) as client:
        await client.send("x" * 65_536)
        assert await client.recv() == "65536"
        await client.send("x" * 65_537)
        assert (await closed(client))[0] == 1009
    # Nor in parts, nor when its sender goes on and on.
    async with websockets.connect(f"ws://{address}/ws", max_size=None) as client:
        await client.send("x" * 20_000 for _ in range(4))
        assert (await closed(client))[0] == 1009
    reader, writer = await raw_client(address)
    size = 5_000_000
    writer.write(b"\x81\xff" + size.to_bytes(8) + bytes(4) + b"x" * size)
    async with asyncio.timeout(60):
        answer = await reader.readexactly(4)
        assert (answer[0], int.from_bytes(answer[2:])) == (0x88, 1009)
        await writer.drain()
    writer.transport.abort()


async def test_a_long_frame_while_others_wait_to_be_read(served: Serve) -> None:
    """uvicorn stops reading while the application is busy; the close frame has to arrive all the same."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def busy(websocket: WebSocket) -> None:
        await websocket.accept()
        await pause(0.3, "the handler is busy")
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        ended.set_result(1)

    address = await served(busy)
    async with websockets.connect(f"ws://{address}/ws") as client:
        for size in (10, 10, 70_000, 10):
            await client.send("x" * size)
        assert (await closed(client))[0] == 1009
    await asyncio.wait_for(ended, 60)


async def raw_client(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has opened a WebSocket and then violates the protocol."""
    host, port = address.split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


PING, TEXT_BEGINS, EMPTY_FRAGMENT = (bytes([first, 0x80, 0, 0, 0, 0]) for first in (0x89, 0x01, 0x00))
"""Masked frames without content."""


def close_code(answer: bytes) -> tuple[int, int]:
    """Return the code of the close frame at the end of the server's output, and the number of empty pongs before it."""
    pongs, rest = divmod(answer.index(0x88), 2)
    assert rest == 0 and answer[: 2 * pongs] == b"\x8a\x00" * pongs
    return int.from_bytes(answer[2 * pongs + 2 : 2 * pongs + 4]), pongs


@pytest.mark.parametrize("flood", [PING, TEXT_BEGINS + 300_000 * EMPTY_FRAGMENT, bytes([0x8A]) + PING[1:]])
async def test_a_flood_of_frames_that_are_no_messages_ends_its_connection(
    served: Serve, flood: bytes
) -> None:
    """300,000 of them, 1.8 MB: others are served meanwhile, and few were parsed."""
    address = await served(echo)
    reader, writer = await raw_client(address)
    flood = flood if len(flood) > 6 else 300_000 * flood
    worst = 0.0
    async with asyncio.timeout(60), httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:
        writer.write(flood)
        for _ in range(20):
            # The server runs in this thread: its CPU time, whatever else the machine does.
            began = time.thread_time()
            await http.get(f"http://{address}/")
            worst = max(worst, time.thread_time() - began)
        code, pongs = close_code(await reader.read())
    assert code == 1008 and pongs <= 101
    assert worst < 1.0
    writer.transport.abort()


async def test_a_message_comes_in_at_most_64_fragments(served: Serve) -> None:
    address = await served(echo)
    async with websockets.connect(f"ws://{address}/ws") as client:
        await client.send(["x"] * 63)  # (the library adds an empty one)
        assert await client.recv() == "63"
    async with websockets.connect(f"ws://{address}/ws") as client:
        await client.send(["x"] * 64)
        assert await closed(client) == (1008, "too many fragments")


async def test_a_client_within_its_limit_of_control_frames_is_served(served: Serve) -> None:
    address = await served(echo)
    async with websockets.connect(f"ws://{address}/ws") as client:
        for _ in range(90):
            await (await client.ping())
        await client.send("still here")
        assert await client.recv() == "10"


async def test_reading_stops_while_pongs_are_not_read(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are allowed: unsent answers take memory."""
    monkeypatch.setattr(websocket_protocol, "FRAMES_BURST", 1e9)
    monkeypatch.setattr(server, "PING", 600.0)  # nothing is read for some time
    address = await served(echo)
    reader, writer = await raw_client(address)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    ping = bytes([0x89, 0xFD, 0, 0, 0, 0]) + b"x" * 125
    writer.write(ping * 300_000)  # 39 MB
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await writer.drain()
    left = writer.transport.get_write_buffer_size()
    assert left > 20_000_000, "the kernel has the rest"
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        pongs = 0
        while pongs < 300_000:
            kind, length = await reader.readexactly(2)
            body = await reader.readexactly(length)
            if kind == 0x89:  # a ping of the server's own, on a slow machine
                continue
            assert (kind, body) == (0x8A, b"x" * 125)
            pongs += 1
    writer.transport.abort()


async def test_many_frames_in_one_read_are_delivered_in_order(served: Serve) -> None:
    """The frames parsed in one iteration of the loop are bounded; none is lost or changed."""
    address = await served(echo)
    reader, writer = await raw_client(address)
    frame = bytes([0x81, 0x80 | 3, 0, 0, 0, 0]) + b"abc"
    writer.write(frame * 20_000)  # 180 KB
    async with asyncio.timeout(60):
        for _ in range(20_000):
            assert await reader.readexactly(3) == b"\x81\x013"
    writer.transport.abort()


async def deaf_client(address: str) -> asyncio.StreamWriter:
    """A client that reads nothing."""
    _, writer = await raw_client(address)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return writer


async def test_a_reader_that_reads_nothing_is_disconnected(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_protocol, "CLOSE_WITHIN", 8.0)
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await websocket.send_text("x" * 10_000)
        began = time.monotonic()
        await websocket.close(1013, "too slow")
        ended.set_result(time.monotonic() - began)

    address = await served(talk)
    writer = await deaf_client(address)
    # The close does not wait for the reader, and some seconds later the connection is gone.
    port = int(address.split(":")[1])
    assert await asyncio.wait_for(ended, 60) < websocket_protocol.CLOSE_WITHIN
    assert established(port), "it waited for the end"
    await until(lambda: not established(port), every=0.05)
    writer.transport.abort()


def established(port: int) -> int:
    """Return the number of connections that the server on this port has."""
    import psutil

    return sum(
        1
        for one in psutil.Process().net_connections("tcp")
        if one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
    )


async def test_a_reader_that_reads_in_time_receives_the_reason(served: Serve) -> None:
    closing = asyncio.Event()

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await websocket.send_text("x" * 10_000)
        closing.set()
        await websocket.close(1013, "too slow")

    address = await served(talk)
    async with websockets.connect(f"ws://{address}/ws", max_queue=1) as client:
        await asyncio.wait_for(closing.wait(), 60)
        assert await closed(client) == (1013, "too slow")


async def test_a_client_that_answers_no_ping_is_disconnected(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PING", 2.0)
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        began = time.monotonic()
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_text()
        ended.set_result(time.monotonic() - began)

    address = await served(listen)
    async with websockets.connect(f"ws://{address}/ws", ping_interval=None) as client:
        await pause(7, "time of three pings, in which the connection must not end")
        assert not ended.done()
        await client.close()
    await asyncio.wait_for(ended, 60)
    ended = asyncio.get_running_loop().create_future()
    writer = await deaf_client(address)
    assert await asyncio.wait_for(ended, 60) > 3.0, "a ping, and the time for its answer"
    writer.transport.abort()


async def test_a_stop_closes_with_1012_and_lets_requests_finish(served: Serve) -> None:
    address = await served(echo)
    async with websockets.connect(f"ws://{address}/ws") as client:
        await client.send("x")
        assert await client.recv() == "1"
        writer = await deaf_client(address)
        task = served.task  # type: ignore[attr-defined]
        task.cancel()
        assert (await closed(client))[0] == 1012
        await asyncio.wait({task}, timeout=60)
        assert task.cancelled()
        writer.transport.abort()


async def test_the_clients_address_is_the_one_that_trusted_proxies_report(served: Serve) -> None:
    async def ask(address: str, **headers: str) -> Any:
        async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:
            return (await http.get(f"http://{address}/", headers=headers)).json()

    forwarded = {"X-Forwarded-For": "198.51.100.9, 203.0.113.7", "X-Forwarded-Proto": "https"}
    trusting = await served()
    assert await ask(trusting, **forwarded) == ["203.0.113.7", "https"]
    assert await ask(trusting) == ["127.0.0.1", "http"]
    assert await ask(await served(trusted_proxies=("127.0.0.1", "203.0.113.0/24")), **forwarded) == [
        "198.51.100.9",
        "https",
    ]
    assert await ask(await served(trusted_proxies=()), **forwarded) == ["127.0.0.1", "http"]


async def test_a_proxy_is_recognised_in_either_spelling_of_its_address(served: Serve) -> None:
    """On `::` an IPv4 proxy has the address ::ffff:127.0.0.1."""
    port = (await served(http_host="::", trusted_proxies=("127.0.0.1", "198.51.100.0/24"))).rpartition(":")[2]
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:

        async def ask(chain: str) -> Any:
            return (await http.get(f"http://127.0.0.1:{port}/", headers={"X-Forwarded-For": chain})).json()[0]

        assert await ask("203.0.113.7") == "203.0.113.7"
        assert await ask("203.0.113.7, ::ffff:198.51.100.2") == "203.0.113.7"


def test_a_public_address_without_trusted_proxies_is_logged() -> None:
    for host, proxies, warned in (
        ("0.0.0.0", ("127.0.0.1", "::1"), True),
        ("::", (), True),
        ("0.0.0.0", ("127.0.0.1", "10.0.0.0/8"), False),
        ("127.0.0.1", ("127.0.0.1", "::1"), False),
    ):
        settings = Settings(
            supabase_url="https://p.supabase.co", supabase_service_key=SecretStr("key"), http_host=host,
            trusted_proxies=proxies,
        )  # fmt: skip
        with capture_logs() as said:
            server._warn_if_proxies_are_untrusted(settings)
        assert bool(said) == warned


async def test_an_address_in_use_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(
            supabase_url="https://p.supabase.co",
            supabase_service_key=SecretStr("key"),
            http_port=taken.getsockname()[1],
        )
        with pytest.raises(ConfigurationError, match="GRE_HTTP_PORT: cannot listen on"):
            listeners.listen(settings, api=True)
