"""Availability and backlog of the database, and the desk's queue, read on request.

An idle daemon makes no request for them. Results are cached for seconds, so frequent readers cost little.
"""

from __future__ import annotations

import asyncio
import time

from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import DeskStats, Json
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

DATABASE_AGE = 1.0
"""Seconds for which the availability is cached."""
STATS_AGE = 5.0
"""Seconds for which the backlog is cached."""
WITHIN = 1.0
"""Seconds for which a reader waits for the database."""


class DatabaseStatus:
    """Cached availability, backlog and queue, for one process."""

    def __init__(self, database: RelayDatabase, metrics: Metrics) -> None:
        """`metrics` export the backlog and the queue."""
        self._database = database
        self._metrics = metrics
        self._asking = asyncio.Lock()
        self._asked_at = -DATABASE_AGE
        self._problem = ""
        self._read_at = -STATS_AGE
        self._rows: list[Json] = []

    async def problem(self) -> str:
        """Return one line about why the database is unavailable, or an empty string."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= DATABASE_AGE:
                try:
                    async with asyncio.timeout(WITHIN):
                        await self._database.schema_version()
                    self._problem = ""
                except BridgeError as error:
                    self._problem = str(error)
                except TimeoutError:
                    self._problem = f"the database has not answered within {WITHIN:g} s"
                self._asked_at = time.monotonic()
            return self._problem

    async def waiting(self) -> tuple[int, float]:
        """Return the number of pending deliveries, and the age of the oldest in seconds."""
        await self.refresh()
        return sum(row["pending"] for row in self._rows), max(
            (row["oldest_age"] or 0.0 for row in self._rows), default=0.0
        )

    async def refresh(self) -> None:
        """Read backlog and queue unless they are cached; keep the old ones while the database is unavailable."""
        now = time.monotonic()
        if now - self._read_at < STATS_AGE:
            return
        self._read_at = now
        try:
            async with asyncio.timeout(WITHIN):
                # Each is exported as soon as it is read: an error of the second does not hide the first.
                self._export_backlog(await self._database.stats())
                self._export_queue(await self._database.desk_stats())
        except TimeoutError:
            self._metrics.database_errors.labels("transient").inc()
        except BridgeError as error:
            self._metrics.database_errors.labels(error.kind).inc()

    def _export_backlog(self, rows: list[Json]) -> None:
        self._rows = rows
        for row in rows:
            sink = row["sink"]
            self._metrics.backlog.labels(sink).set(row["pending"])
            self._metrics.oldest_age.labels(sink).set(row["oldest_age"] or 0)
            self._metrics.dead.labels(sink).set(row["dead"])
            self._metrics.lanes_blocked.labels(sink).set(row["lanes_blocked"])

    def _export_queue(self, desk: DeskStats) -> None:
        metrics = self._metrics
        metrics.sessions_waiting.labels("no").set(desk.unassigned)
        metrics.sessions_waiting.labels("yes").set(desk.assigned)
        for gauge, value in (
            (metrics.queue_age, desk.oldest_age), (metrics.staff_available, desk.available_staff)
        ):  # fmt: skip
            gauge.clear()  # the mode of assignment may have changed
            gauge.labels(desk.assignment).set(value)

    def clear(self) -> None:
        """Remove backlog and queue from the metrics: the other process exports them."""
        self._read_at = -STATS_AGE
        metrics = self._metrics
        for gauge in (
            metrics.backlog, metrics.oldest_age, metrics.dead, metrics.lanes_blocked,
            metrics.sessions_waiting, metrics.queue_age, metrics.staff_available,
        ):  # fmt: skip
            gauge.clear()
