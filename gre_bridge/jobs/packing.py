"""Packing: has the database pack the facts of finished hours, so that a report of a year takes a fraction of a second.

The database decides what is packed, in small parts; one worker packs at a time. Reports are right without it, only slower.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from gre_bridge.db.report_answers import Packing
from gre_bridge.jobs.loop import JobLoop, Pause
from gre_bridge.metrics import Metrics

DELAY = 60.0
"""Seconds after the start of the process: a worker has more urgent work then."""
INTERVAL = 600.0
"""Seconds between two calls while nothing waits to be packed."""
MORE = 1.0
"""Seconds between two calls while more waits: other work comes first."""


class PackingStore(Protocol):
    """The database, as the job needs it."""

    async def pack(self) -> Packing:
        """Pack a part of what waits. Raises BridgeError."""


class PackingJob(JobLoop):
    """Has finished hours packed."""

    name = "packing"

    def __init__(
        self, *, store: PackingStore, metrics: Metrics, jitter: Callable[[], float] = random.random
    ) -> None:
        """See JobLoop."""
        super().__init__(metrics=metrics, jitter=jitter)
        self._store = store
        self._waited = False

    async def _call(self) -> Pause:
        if not self._waited:
            self._waited = True
            return Pause(DELAY, DELAY)
        answer = await self._store.pack()
        pause = MORE if answer.more else INTERVAL * (0.5 + self._jitter() / 2)
        return Pause(pause, pause)
