"""The health of one process, for `/readyz`, `/healthz`, the supervisor and the registration.

It reads the state of the components and stores none. Readiness covers this process and its database. Sinks have their
own entry: an unavailable sink does not affect the clients of the API.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from gre_bridge.config.settings import Settings
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json
from gre_bridge.realtime.subscription import Subscription, SubscriptionState

if TYPE_CHECKING:  # each process loads only its own side
    from gre_bridge.api.ws.hub import Hub
    from gre_bridge.relay.dispatcher import Dispatcher

SUBSCRIPTION_PATIENCE = 150.0
"""Seconds that an iteration of the subscription may take: opening a connection, or a heartbeat."""
ITERATION_MARGIN = 30.0
"""Seconds that an iteration of a dispatcher may take beyond its waits: a busy machine."""
CALLS_PER_ITERATION = 3
"""Calls to the database in one iteration of a dispatcher, each of which may time out: release, settle, claim."""
READ_ONLY = "is read-only"
"""Part of the error of a claim while the database accepts no writes."""

ProcessName = Literal["relay", "api"]


def database_timeout(settings: Settings) -> float:
    """Return the time limit of a call to the database: a claim that takes longer than its lease is useless."""
    return min(settings.request_timeout, settings.lease_seconds)


def iteration_patience(settings: Settings) -> float:
    """Return the seconds that an iteration of a dispatcher may take: a poll interval, then its calls to the database."""
    waits = max(settings.poll_interval, settings.fast_poll_interval)
    return waits + CALLS_PER_ITERATION * database_timeout(settings) + ITERATION_MARGIN


class ProcessHealth:
    """The health of the components of one process."""

    def __init__(
        self,
        *,
        process: ProcessName,
        settings: Settings,
        subscription: Subscription,
        database: DatabaseStatus,
        schema: Callable[[], str],
        stopping: asyncio.Event,
        dispatchers: Sequence[Dispatcher] = (),
        hub: Callable[[], Hub | None] = lambda: None,
    ) -> None:
        """`dispatchers` is filled when relaying begins; `schema` returns one line about an unsupported schema."""
        self.process = process
        self._patience = iteration_patience(settings)
        self._subscription = subscription
        self.database = database
        self._schema = schema
        self._stopping = stopping
        self._dispatchers = dispatchers
        self._hub = hub

    def stalled(self) -> str:
        """Return a line about a stalled loop, or an empty string."""
        if self._stopping.is_set():
            return ""  # draining is bounded by GRE_DRAIN_SECONDS
        now = time.monotonic()
        for dispatcher in self._dispatchers:
            if now - dispatcher.turned > self._patience:
                return f"{dispatcher.sink.name}: no iteration for {now - dispatcher.turned:.0f} s"
        if (
            self._subscription.state is not SubscriptionState.STOPPED
            and now - self._subscription.last_iteration > SUBSCRIPTION_PATIENCE
        ):
            return f"realtime: no iteration for {now - self._subscription.last_iteration:.0f} s"
        return ""

    def problems(self) -> list[str]:
        """Return the reasons why this process is not ready, without asking the database."""
        found = [self._schema(), self.stalled(), "stopping" if self._stopping.is_set() else ""]
        found += [f"{d.sink.name}: {d.last_error}" for d in self._failing(read_only=False)]
        return [line for line in found if line]

    def warnings(self) -> list[str]:
        """Return problems for operators that do not affect readiness: reading still works."""
        return [f"{d.sink.name}: {d.last_error}" for d in self._failing(read_only=True)]

    def _failing(self, *, read_only: bool) -> list[Dispatcher]:
        """Return the dispatchers that cannot claim."""
        return [d for d in self._dispatchers if d.last_error and (READ_ONLY in d.last_error) is read_only]

    async def state(self, *, ask_database: bool = True) -> Json:
        """Return the whole state, for `/readyz` and the other process."""
        problems = self.problems()
        if ask_database and not self._schema():
            problem = await self.database.problem()
            if problem and not any(problem in line for line in problems):
                problems.append(problem)
        return {
            "process": self.process,
            "pid": os.getpid(),
            "problems": problems,
            "warnings": self.warnings(),
            "overview": self.overview(),
        }

    def overview(self) -> Json:
        """Return the state for the health endpoint of the chat."""
        hub = self._hub()
        return {
            "connections": len(hub.registry) if hub else 0,
            "realtime": {
                "state": self._subscription.state.value,
                "healthy": self._subscription.healthy,
                "detail": self._subscription.detail,
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
        """Return the state for `gre_relay_workers` and `gre-bridge status`, with the sinks by name."""
        overview = self.overview()
        sinks = {row["sink"]: row for row in overview["sinks"]}
        return {**overview, "sinks": sinks, "process": self.process, "pid": os.getpid()}
