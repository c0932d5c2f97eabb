"""Automatic assignment: has the database assign waiting sessions to staff, after wake-ups and on a timer.

Sessions, limits and order are the database's business. The job only decides when to call; any number of workers may
run it, and the database lets one work at a time. It must not delay the relay, and must not call often while assignment
is off.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from gre_bridge.db.types import Assignments
from gre_bridge.jobs.loop import JobLoop, Pause
from gre_bridge.metrics import Metrics

DEBOUNCE = 0.1
"""Shortest time in seconds from the end of a call to the next one, unless the database has more to assign."""
INTERVAL = 5.0
"""Longest time: for what no wake-up announces, such as staff whose presence expires, and opening hours."""
OFF_INTERVAL = 15.0
"""Seconds between two calls while assignment is off; wake-ups are ignored."""
BUSY_PAUSE, LONGEST_BUSY_PAUSE = 0.02, 0.5
"""First and longest pause in seconds while another worker assigns."""


class AssignmentStore(Protocol):
    """The database, as the job needs it."""

    async def assign_waiting(self) -> Assignments:
        """Assign waiting sessions. Raises BridgeError."""


class AssignmentJob(JobLoop):
    """Has waiting sessions assigned."""

    name = "assignment"

    def __init__(
        self, *, store: AssignmentStore, metrics: Metrics, jitter: Callable[[], float] = random.random
    ) -> None:
        """See JobLoop."""
        super().__init__(metrics=metrics, jitter=jitter)
        self._store = store
        self._busy = 0

    async def _call(self) -> Pause:
        answer = await self._store.assign_waiting()
        self._metrics.sessions_assigned.inc(answer.assigned)
        self._metrics.sessions_returned.inc(answer.returned)
        if answer.busy:
            self._metrics.assignment_busy.inc()
            self._busy += 1
            return self._backoff(BUSY_PAUSE, LONGEST_BUSY_PAUSE, self._busy - 1)
        self._busy = 0
        if not answer.enabled:
            return Pause(OFF_INTERVAL, OFF_INTERVAL)
        return Pause(0.0, 0.0) if answer.more else Pause(DEBOUNCE, INTERVAL)
