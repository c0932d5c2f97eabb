"""A virus scanner that can be taken away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from tests.chaos.tcp_proxy import TcpProxy
from tests.support.clamd import Scanner, scanning


@contextlib.contextmanager
def scanner() -> Iterator[TcpProxy]:
    """Run a stand-in of clamd; yields the forwarder before it."""
    loop, over, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with scanning(Scanner()) as address:
            ports.append(int(address.rpartition(":")[2]))
            started.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        started.wait(10)
        with TcpProxy("127.0.0.1", ports[0]) as proxy:
            yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
