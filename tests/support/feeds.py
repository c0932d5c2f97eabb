"""A running feed for tests, which insists that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from gre_bridge.realtime.subscription import FeedState, Subscription, Timing
from tests.support.phoenix import PhoenixServer, until

KEY = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.a-key-that-no-log-may-show"
S1, S2 = "6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1", "9a1f6c34-8f55-4e0e-8d0b-7e2f4c1d9b02"
BOTH = {"broadcast", "postgres_changes"}
BROADCAST = {"broadcast"}
FAST = {
    "connect": 10.0,
    "join": 10.0,
    "system": 10.0,
    "heartbeat": 5.0,
    "pong": 5.0,
    "close": 0.1,
    "renew": 1e6,
    "retry": 1e6,
    "backoff": 0.02,
    "backoff_max": 0.1,
    "stable": 30.0,
    "throttled": 1e6,
    "probed": 5.0,
}


class Running:
    """A feed that runs, with what it told its owner."""

    def __init__(
        self, server: PhoenixServer, *, on_ring: Callable[..., Any] | None = None, **options: Any
    ) -> None:
        timing = Timing(**FAST | {k: options.pop(k) for k in list(options) if k in FAST})
        self.rings: list[Any] = []
        self.states: list[FeedState] = []
        self.details: list[str] = []
        changes = options.pop("changes", False)
        self.feed = Subscription(
            url=server.url,
            key=options.pop("key", KEY),
            on_ring=on_ring or self.rings.append,
            on_state=self._on_state,
            timing=timing,
            **options,
        )
        self.feed.use_changes(changes)

    def _on_state(self, state: FeedState) -> None:
        self.states.append(state)
        self.details.append(self.feed.detail)

    def told(self, text: str) -> bool:
        return any(text in detail for detail in self.details)

    def live(self) -> bool:
        return self.feed.state is FeedState.LIVE


@contextlib.asynccontextmanager
async def running(server: PhoenixServer, **options: Any) -> AsyncIterator[Running]:
    """Run a feed; on leaving, cancel it and insist that it left neither a task nor a socket behind."""
    before = asyncio.all_tasks()
    it = Running(server, **options)
    task = asyncio.create_task(it.feed.run())
    try:
        yield it
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert it.feed.state is FeedState.STOPPED
    assert not it.feed.healthy
    for socket in server.sockets:
        socket.transport.resume_reading()
    await until(lambda: not server.sockets)
    await until(lambda: not asyncio.all_tasks() - before)
