"""Timers: has the database fire what is due, such as messages to players who wait and the closing of idle sessions.

The database decides what a timer does, and fires it once for any number of workers. The job only decides when to call.
It needs no wake-ups: a timer that is started now and due within INTERVAL fires up to INTERVAL late.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from gre_bridge.db.types import Tick
from gre_bridge.jobs.loop import JobLoop, Pause
from gre_bridge.metrics import Metrics

INTERVAL = 5.0
"""Longest time in seconds between two calls, to learn of new timers."""
OFF_INTERVAL = 15.0
"""Seconds between two calls while nothing can start a timer."""
DEBOUNCE = 0.05
"""Shortest time in seconds between two calls, unless timers were fired."""
LOCKED_PAUSE, LONGEST_LOCKED_PAUSE = 0.05, 1.0
"""First and longest pause in seconds while other transactions hold the sessions of all due timers."""


class TimerStore(Protocol):
    """The database, as the job needs it."""

    async def tick(self, *, late_after: float) -> Tick:
        """Fire due timers. Raises BridgeError."""


class TimerJob(JobLoop):
    """Has due timers fired."""

    name = "timers"

    def __init__(
        self,
        *,
        store: TimerStore,
        metrics: Metrics,
        late_after: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`late_after`: seconds after which an auto-reply that is due is skipped. See JobLoop."""
        super().__init__(metrics=metrics, jitter=jitter)
        self._store = store
        self._late_after = late_after
        self._locked = 0

    async def _call(self) -> Pause:
        answer = await self._store.tick(late_after=self._late_after)
        for result, count in (("sent", answer.sent), ("skipped", answer.skipped), ("failed", answer.failed)):
            self._metrics.timed_replies.labels(result).inc(count)
        self._metrics.sessions_closed_idle.inc(answer.closed)
        next_in = INTERVAL if answer.next_in is None else answer.next_in
        self._metrics.timers_overdue.set(max(-next_in, 0.0))
        if next_in > 0:
            self._locked = 0
            pause = OFF_INTERVAL if not answer.enabled else min(max(next_in, DEBOUNCE), INTERVAL)
            return Pause(pause, pause)
        if answer.handled:
            self._locked = 0
            return Pause(0.0, 0.0)
        self._locked += 1
        return self._backoff(LOCKED_PAUSE, LONGEST_LOCKED_PAUSE, self._locked - 1)
