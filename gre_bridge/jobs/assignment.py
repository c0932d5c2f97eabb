"""Automatic assignment: has the database assign waiting sessions to staff, after wake-ups and on a timer.

Sessions, limits and order are the database's business. The job only decides when to call; any number of workers may
run it, and the database lets one work at a time. It must not delay the relay, and must not call often while assignment
is off.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from gre_bridge.db.types import Assignments
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.jobs")

DEBOUNCE = 0.1
"""Shortest time in seconds from the end of a call to the next one, unless the database has more to assign."""
INTERVAL = 5.0
"""Longest time: for what no wake-up announces, such as staff whose presence expires, and opening hours."""
OFF_INTERVAL = 15.0
"""Seconds between two calls while assignment is off."""
BUSY_PAUSE, LONGEST_BUSY_PAUSE = 0.02, 0.5
"""First and longest pause in seconds while another worker assigns."""
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 15.0
"""First and longest pause in seconds after a failure."""


class AssignmentStore(Protocol):
    """The database, as the job needs it."""

    async def assign_waiting(self) -> Assignments:
        """Assign waiting sessions. Raises BridgeError."""


@dataclass(frozen=True, slots=True)
class _Pause:
    """Seconds to the next call: `shortest` in any case, then until a wake-up, at most `longest`."""

    shortest: float
    longest: float


class AssignmentJob:
    """Calls the database until cancelled."""

    def __init__(
        self, *, store: AssignmentStore, metrics: Metrics, jitter: Callable[[], float] = random.random
    ) -> None:
        """`jitter` returns a number from 0 to 1."""
        self._store = store
        self._metrics = metrics
        self._jitter = jitter
        self._changed = asyncio.Event()
        self._busy = 0
        self._failures = 0

    def notify(self) -> None:
        """Record that sessions or staff may have changed. Ignored while assignment is off."""
        self._changed.set()

    async def run(self) -> None:
        """Assign until cancelled."""
        while True:
            self._changed.clear()
            try:
                pause = self._next(await self._store.assign_waiting())
            except Exception as error:  # noqa: BLE001 - no error may end the loop
                pause = self._failed(error)
            await self._wait(pause)

    async def _wait(self, pause: _Pause) -> None:
        await asyncio.sleep(pause.shortest)
        if pause.longest > pause.shortest:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause.longest - pause.shortest):
                    await self._changed.wait()

    def _next(self, answer: Assignments) -> _Pause:
        """Count what was done, and return the pause after it."""
        if self._failures:
            log.info("assignment_recovered", failures=self._failures)
        self._failures = 0
        self._metrics.sessions_assigned.inc(answer.assigned)
        self._metrics.sessions_returned.inc(answer.returned)
        if answer.busy:
            self._metrics.assignment_busy.inc()
            pause = min(BUSY_PAUSE * 2.0 ** min(self._busy, 10), LONGEST_BUSY_PAUSE) * (
                0.5 + self._jitter() / 2
            )
            self._busy += 1
            return _Pause(pause, pause)
        self._busy = 0
        if not answer.enabled:
            return _Pause(OFF_INTERVAL, OFF_INTERVAL)
        return _Pause(0.0, 0.0) if answer.more else _Pause(DEBOUNCE, INTERVAL)

    def _failed(self, error: Exception) -> _Pause:
        """Log the first failure of a series, and return a growing pause."""
        kind = error.kind if isinstance(error, BridgeError) else "defect"
        self._metrics.database_errors.labels(kind).inc()
        if self._failures == 0:
            text = str(error) if isinstance(error, BridgeError) else type(error).__name__
            log.warning("assignment_failed", error=text, kind=kind)
        pause = min(FIRST_BACKOFF * 2.0 ** min(self._failures, 10), LONGEST_BACKOFF) * (
            0.5 + self._jitter() / 2
        )
        self._failures += 1
        return _Pause(pause, pause)
