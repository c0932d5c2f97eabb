"""What one process of the daemon says of itself: to `/readyz` and `/healthz`, the supervisor and its registration.

It reads the parts and keeps nothing, so it can never be of another opinion than they are. Readiness is about this
process and its database; sinks have their own entry, because a sink that is down takes nothing from who is served.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

from gre_bridge.api.ws.hub import Hub
from gre_bridge.config.settings import Settings
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json
from gre_bridge.realtime.subscription import Subscription, SubscriptionState
from gre_bridge.relay.dispatcher import Dispatcher

FEED_PATIENCE = 150.0
"""Seconds that a turn of the feed's loop may take: a link opens, or beats."""
TURN_MARGIN = 30.0
"""Seconds that a turn of a dispatcher may take beyond its waits: a busy machine."""
CALLS_PER_TURN = 3
"""Calls to the database in one turn of a dispatcher, each of which may take its whole time-out: release, settle, claim."""
READ_ONLY = "is read-only"
"""Words by which a claim's error says that the database takes no writes."""

ProcessName = Literal["relay", "api"]


def database_timeout(settings: Settings) -> float:
    """Seconds for a call to the database: a claim that took longer than its lease could send nothing."""
    return min(settings.request_timeout, settings.lease_seconds)


def turn_patience(settings: Settings) -> float:
    """Seconds that a dispatcher's turn may take with these settings: a whole poll, then its calls to the database."""
    waits = max(settings.poll_interval, settings.fast_poll_interval)
    return waits + CALLS_PER_TURN * database_timeout(settings) + TURN_MARGIN


class ProcessHealth:
    """The state of one process's parts."""

    def __init__(
        self,
        *,
        process: ProcessName,
        settings: Settings,
        feed: Subscription,
        schema: Callable[[], str],
        stopping: asyncio.Event,
        dispatchers: Sequence[Dispatcher] = (),
        hub: Callable[[], Hub | None] = lambda: None,
    ) -> None:
        """`dispatchers` is filled when relaying begins; `schema` says what is wrong with it in one line."""
        self.process = process
        self._patience = turn_patience(settings)
        self._feed = feed
        self._schema = schema
        self._stopping = stopping
        self._dispatchers = dispatchers
        self._hub = hub
        self.database: DatabaseStatus | None = None
        """Set once the process has a way to the database."""

    def stalled(self) -> str:
        """Which loop does not turn any more; empty while all do."""
        if self._stopping.is_set():
            return ""  # draining is bounded by GRE_DRAIN_SECONDS
        now = time.monotonic()
        for dispatcher in self._dispatchers:
            if now - dispatcher.turned > self._patience:
                return f"{dispatcher.sink.name}: its loop has not turned for {now - dispatcher.turned:.0f} s"
        if (
            self._feed.state is not SubscriptionState.STOPPED
            and now - self._feed.last_iteration > FEED_PATIENCE
        ):
            return f"feed: its loop has not turned for {now - self._feed.last_iteration:.0f} s"
        return ""

    def problems(self) -> list[str]:
        """Why this process is not ready as far as it knows without asking the database, one line each."""
        found = [self._schema(), self.stalled(), "stopping" if self._stopping.is_set() else ""]
        found += [f"{d.sink.name}: {d.last_error}" for d in self._failing(read_only=False)]
        return [line for line in found if line]

    def warnings(self) -> list[str]:
        """What an operator should know and a load balancer need not: reading goes on."""
        return [f"{d.sink.name}: {d.last_error}" for d in self._failing(read_only=True)]

    def _failing(self, *, read_only: bool) -> list[Dispatcher]:
        """Dispatchers that cannot claim."""
        return [d for d in self._dispatchers if d.last_error and (READ_ONLY in d.last_error) is read_only]

    async def state(self, *, ask_database: bool = True) -> Json:
        """All of it, as `/readyz` and the other process get it."""
        problems = self.problems()
        if ask_database and self.database is not None and not self._schema():
            problem = await self.database.problem()
            if problem and not any(problem in known for known in problems):
                problems.append(problem)
        return {
            "process": self.process,
            "pid": os.getpid(),
            "problems": problems,
            "warnings": self.warnings(),
            "overview": self.overview(),
        }

    def overview(self) -> Json:
        """What the chat's own health endpoint tells of this process."""
        hub = self._hub()
        return {
            "connections": len(hub.registry) if hub else 0,
            "realtime": {
                "state": self._feed.state.value,
                "healthy": self._feed.healthy,
                "detail": self._feed.detail,
            },
            "sinks": [
                {
                    "sink": d.sink.name,
                    "breaker": d.breaker_state.value,
                    "error": d.breaker.reason or d.last_error or None,
                }
                for d in self._dispatchers
            ],
        }

    def registration(self) -> Json:
        """What `gre_relay_workers` keeps of this process, for `gre-bridge status`: the sinks by name."""
        overview = self.overview()
        sinks = {row["sink"]: row for row in overview["sinks"]}
        return {**overview, "sinks": sinks, "process": self.process, "pid": os.getpid()}
