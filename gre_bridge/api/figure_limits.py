"""Bounds what reports and exports cost: how many read the database at once in this process, and how many exports are open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gre_bridge.errors import Refused

MAX_READS = 2
"""Reports, and pages of exports, that are read at a time."""
MAX_EXPORTS = 2
"""Exports that are open at a time, however slowly their clients read."""
WAIT = 5.0
"""Seconds for which a request waits for its turn."""
RETRY_AFTER = 5.0


class FigureLimits:
    """The limits of one process."""

    def __init__(self) -> None:
        """Nothing is being read."""
        self._reads = asyncio.Semaphore(MAX_READS)
        self._exports = asyncio.Semaphore(MAX_EXPORTS)

    def read(self, wait: float | None = WAIT) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait for a turn to read, at most `wait` seconds unless None. Raises Refused (503 `busy`)."""
        return _turn(self._reads, wait)

    def export(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait until an export may be open. Raises Refused (503 `busy`)."""
        return _turn(self._exports, WAIT)


@contextlib.asynccontextmanager
async def _turn(slots: asyncio.Semaphore, wait: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(wait):
            await slots.acquire()
    except TimeoutError:
        text = "too many reports and exports at once, try again in a moment"
        raise Refused(503, "busy", text, retry_after=RETRY_AFTER) from None
    try:
        yield
    finally:
        slots.release()
