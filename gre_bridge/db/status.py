"""Asks the database, when somebody wants to know, whether it answers and what waits in it.

An idle daemon makes no request for either. Answers are kept for seconds, so that whoever asks often costs little.
"""

from __future__ import annotations

import asyncio
import time

from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

DATABASE_AGE = 1.0
"""Seconds for which it is known whether the database answers."""
STATS_AGE = 5.0
"""Seconds for which backlog figures are good."""
WITHIN = 1.0
"""Seconds that the one who asks waits for the database."""


class DatabaseStatus:
    """What one process knows of the database."""

    def __init__(self, store: RelayDatabase, metrics: Metrics) -> None:
        """Ask through `store`; backlog figures also go to `metrics`."""
        self._store = store
        self._metrics = metrics
        self._asking = asyncio.Lock()
        self._asked_at = -DATABASE_AGE
        self._problem = ""
        self._read_at = -STATS_AGE
        self._rows: list[Json] = []

    async def problem(self) -> str:
        """Why the database does not answer, in one line; empty when it does."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= DATABASE_AGE:
                try:
                    async with asyncio.timeout(WITHIN):
                        await self._store.schema_version()
                    self._problem = ""
                except BridgeError as error:
                    self._problem = str(error)
                except TimeoutError:
                    self._problem = f"the database has not answered within {WITHIN:g} s"
                self._asked_at = time.monotonic()
            return self._problem

    async def waiting(self) -> tuple[int, float]:
        """How many events wait to be relayed, and for how many seconds the oldest has waited."""
        await self.refresh()
        return sum(row["pending"] for row in self._rows), max(
            (row["oldest_age"] or 0.0 for row in self._rows), default=0.0
        )

    async def refresh(self) -> None:
        """Read the backlog's figures unless they are fresh; older ones stay while the database does not answer."""
        now = time.monotonic()
        if now - self._read_at < STATS_AGE:
            return
        self._read_at = now
        try:
            async with asyncio.timeout(WITHIN):
                rows = await self._store.stats()
        except TimeoutError:
            self._metrics.database_errors.labels("transient").inc()
            return
        except BridgeError as error:
            self._metrics.database_errors.labels(error.kind).inc()
            return
        self._rows = rows
        for row in rows:
            sink = row["sink"]
            self._metrics.backlog.labels(sink).set(row["pending"])
            self._metrics.oldest_age.labels(sink).set(row["oldest_age"] or 0)
            self._metrics.dead.labels(sink).set(row["dead"])
            self._metrics.lanes_blocked.labels(sink).set(row["lanes_blocked"])

    def forget(self) -> None:
        """Export no backlog figures: the other process does."""
        self._read_at = -STATS_AGE
        for gauge in (
            self._metrics.backlog, self._metrics.oldest_age, self._metrics.dead, self._metrics.lanes_blocked
        ):  # fmt: skip
            gauge.clear()
