"""What a daemon says of itself: to `/readyz` and `/healthz`, the watchdog, its heartbeat and the chat's own health.

It reads the parts and keeps nothing, so it can never be of another opinion than they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gre_bridge.api.hub import Hub
from gre_bridge.feed import Feed, FeedState
from gre_bridge.models import Json
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import BreakerState

FEED_PATIENCE = 150.0
"""Seconds that a turn of the feed's loop may take: a link opens, or beats."""


class Condition:
    """The state of one daemon's parts."""

    def __init__(
        self,
        *,
        dispatchers: list[Dispatcher],
        feed: Feed,
        hub: Callable[[], Hub | None],
        schema: Callable[[], str],
        stopping: asyncio.Event,
    ) -> None:
        """`dispatchers` is filled when relaying begins; `schema` says what is wrong with it in one line."""
        self._dispatchers = dispatchers
        self._feed = feed
        self._hub = hub
        self._schema = schema
        self._stopping = stopping

    def stuck(self) -> str:
        """Which loop does not turn any more; empty while all do."""
        if self._stopping.is_set():
            return ""  # draining is bounded by GRE_DRAIN_SECONDS
        now = time.monotonic()
        for dispatcher in self._dispatchers:
            if now - dispatcher.turned > dispatcher.patience:
                return f"{dispatcher.sink.name}: its loop has not turned for {now - dispatcher.turned:.0f} s"
        if self._feed.state is not FeedState.STOPPED and now - self._feed.turned > FEED_PATIENCE:
            return f"feed: its loop has not turned for {now - self._feed.turned:.0f} s"
        return ""

    def alive(self) -> bool:
        """Whether every loop turns."""
        return not self.stuck()

    def problems(self) -> list[str]:
        """Why this daemon is not ready, one line each; empty when it is."""
        found: list[str] = []
        if problem := self._schema():
            found.append(problem)
        if self._stopping.is_set():
            found.append("stopping")
        now = time.monotonic()
        for dispatcher in self._dispatchers:
            name = dispatcher.sink.name
            if dispatcher.breaker.state(now) is not BreakerState.CLOSED:
                found.append(f"{name}: {dispatcher.breaker.reason}")
            if dispatcher.last_error:
                found.append(f"{name}: {dispatcher.last_error}")
        return found

    def overview(self) -> Json:
        """What the chat's own health endpoint tells of this instance."""
        now, hub = time.monotonic(), self._hub()
        return {
            "connections": len(hub.audience) if hub else 0,
            "realtime": {
                "state": self._feed.state.value,
                "healthy": self._feed.healthy,
                "detail": self._feed.detail,
            },
            "sinks": [
                {
                    "sink": d.sink.name,
                    "breaker": d.breaker.state(now).value,
                    "error": d.breaker.reason or d.last_error or None,
                }
                for d in self._dispatchers
            ],
        }

    def report(self) -> Json:
        """What the heartbeat tells of this daemon, for `gre-bridge status`: the sinks by name."""
        overview = self.overview()
        return {**overview, "sinks": {row["sink"]: row for row in overview["sinks"]}}
