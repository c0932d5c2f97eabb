"""uvicorn inside a running event loop: one ASGI application on one loopback port, started and stopped by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator

import uvicorn

from gre_bridge.devstack.faults import App
from gre_bridge.errors import ConfigurationError


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # The owner of the event loop handles signals.
        yield


@contextlib.contextmanager
def listen(port: int) -> Generator[socket.socket]:
    """A socket bound to 127.0.0.1:`port`, 0 for a free one; raises ConfigurationError when it is taken."""
    # With the protocol named: asyncio sets TCP_NODELAY only then, and each answer would wait 40 ms without.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
        yield listening


@contextlib.asynccontextmanager
async def serve(app: App, listening: socket.socket) -> AsyncGenerator[str]:
    """Serve `app` until the block ends; yields the address, http://127.0.0.1:PORT."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        # The default of some versions is deprecated by the library that it uses.
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        # As the proxies in front of the real services. uvicorn's own 5 s equals the daemon's poll interval, and how long httpx
        # keeps a connection: now and then a request met a connection that was just being closed.
        timeout_keep_alive=75,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                if serving.done():
                    serving.result()
                    raise ConfigurationError("the HTTP server did not start")
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=10)
        serving.cancel()
