"""A running subscription for tests, which asserts that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gre_bridge.db.types import NewRow
from gre_bridge.errors import TransientError
from gre_bridge.realtime.subscription import Subscription, SubscriptionState, Timing
from tests.support.phoenix import PhoenixServer
from tests.support.waiting import until

KEY = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.a-key-that-no-log-may-show"
S1, S2 = "6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1", "9a1f6c34-8f55-4e0e-8d0b-7e2f4c1d9b02"
BOTH = {"broadcast", "postgres_changes"}
BROADCAST = {"broadcast"}
FAST = {
    "connect": 10.0,
    "join": 10.0,
    "system": 10.0,
    "heartbeat": 5.0,
    "heartbeat_reply": 5.0,
    "close": 0.1,
    "renew": 1e6,
    "retry": 1e6,
    "backoff": 0.02,
    "backoff_max": 0.1,
    "stable": 30.0,
    "throttled": 1e6,
    "probe": 5.0,
}


class Recorder:
    """A listener that records what a subscription reports."""

    subscription: Subscription

    def __init__(self) -> None:
        self.wakeups: list[frozenset[str] | None] = []
        self.events: list[tuple[str, object]] = []
        self.states: list[SubscriptionState] = []
        self.details: list[str] = []

    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        self.wakeups.append(sessions)

    def on_event(self, event: str, payload: object) -> None:
        self.events.append((event, payload))

    def on_subscription_change(self, state: SubscriptionState) -> None:
        self.states.append(state)
        self.details.append(self.subscription.detail)

    def is_handled(self, row: NewRow) -> bool:
        return row.seq < 0

    async def request_wakeup(self) -> None:
        raise TransientError("the database is away")

    def reported(self, text: str) -> bool:
        return any(text in detail for detail in self.details)

    def live(self) -> bool:
        return self.subscription.state is SubscriptionState.LIVE


@contextlib.asynccontextmanager
async def running(
    server: PhoenixServer, listener: Any = None, *, row_changes: bool = False, **options: Any
) -> AsyncIterator[Any]:
    """Run a subscription; on leaving, cancel it and assert that it left neither a task nor a socket behind."""
    before = asyncio.all_tasks()
    timing = Timing(**FAST | {k: options.pop(k) for k in list(options) if k in FAST})
    recorder = listener or Recorder()
    recorder.subscription = subscription = Subscription(
        url=server.url, key=options.pop("key", KEY), listener=recorder, timing=timing, **options
    )
    subscription.set_row_changes(row_changes)
    task = asyncio.create_task(subscription.run())
    try:
        yield recorder
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert subscription.state is SubscriptionState.STOPPED
    assert not subscription.healthy
    for socket in server.sockets:
        socket.transport.resume_reading()
    await until(lambda: not server.sockets)
    await until(lambda: not asyncio.all_tasks() - before)
