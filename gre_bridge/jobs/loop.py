"""The loop of a job: calls the database, waits, and calls again until cancelled.

A subclass makes the call and says how long to wait after it. A failure is logged once for a series, and followed by a
growing pause; no error ends the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.jobs")

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 15.0
"""First and longest pause in seconds after a failure."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to the next call: `shortest` in any case, then until a wake-up, at most `longest`."""

    shortest: float
    longest: float


class JobLoop(ABC):
    """Calls the database until cancelled."""

    name: str
    """Prefix of the log events `<name>_failed` and `<name>_recovered`."""

    def __init__(self, *, metrics: Metrics, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` returns a number from 0 to 1."""
        self._metrics = metrics
        self._jitter = jitter
        self._changed = asyncio.Event()
        self._failures = 0
        self._failed_event, self._recovered_event = f"{self.name}_failed", f"{self.name}_recovered"

    @abstractmethod
    async def _call(self) -> Pause:
        """Call the database once, and return the pause after it."""

    def notify(self) -> None:
        """Record that the database has changed: the next call comes after the shortest pause."""
        self._changed.set()

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            self._changed.clear()
            try:
                pause = await self._call()
            except Exception as error:  # noqa: BLE001 - no error may end the loop
                pause = self._failed(error)
            else:
                if self._failures:
                    log.info(self._recovered_event, failures=self._failures)
                self._failures = 0
            await self._wait(pause)

    async def _wait(self, pause: Pause) -> None:
        await asyncio.sleep(pause.shortest)
        if pause.longest > pause.shortest:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause.longest - pause.shortest):
                    await self._changed.wait()

    def _backoff(self, first: float, longest: float, repeats: int) -> Pause:
        """Return a pause that doubles with each repeat."""
        pause = min(first * 2.0 ** min(repeats, 10), longest) * (0.5 + self._jitter() / 2)
        return Pause(pause, pause)

    def _failed(self, error: Exception) -> Pause:
        """Log the first failure of a series, and return a growing pause."""
        kind = error.kind if isinstance(error, BridgeError) else "defect"
        self._metrics.database_errors.labels(kind).inc()
        if self._failures == 0:
            text = str(error) if isinstance(error, BridgeError) else type(error).__name__
            log.warning(self._failed_event, error=text, kind=kind)
        self._failures += 1
        return self._backoff(FIRST_BACKOFF, LONGEST_BACKOFF, self._failures - 1)
