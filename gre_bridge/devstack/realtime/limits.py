"""The limits of a Realtime tenant, as Realtime applies them: rates averaged over a minute, and plain maxima.

Read in Realtime's source (its rate counters, channel, broadcast handler and replication modules) and in agreement with
what was measured on 2.122 and 2.129. What is above a rate is dropped; the client is mostly not told.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

TICK = 5.0
"""Seconds between two looks at a counter: only then is a limit found to be passed, or to hold again."""
BUCKETS = 12
"""Ticks that an average is taken over, fewer in a counter's first minute."""
IDLE = 600.0
"""Seconds without an event after which a counter begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one tenant may do: the server's defaults, which are the free plan's but for the payload's size."""

    events_per_second: float = 100.0
    joins_per_second: float = 100.0
    concurrent_users: int = 200
    channels_per_client: int = 100
    payload_bytes: int = 3_000_500


class RateCounter:
    """Events a second, averaged over the last minute of ticks."""

    def __init__(self, limit: Callable[[], float], tick: float, clock: Callable[[], float]) -> None:
        """`limit` is in events a second, `tick` in seconds."""
        self._limit = limit
        self._tick = tick
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._ticked = self._clock()
        self._count = 0
        self._buckets: deque[int] = deque([0], maxlen=BUCKETS)
        self._exceeded = False

    def add(self, count: int = 1) -> None:
        """Count events."""
        self._advance()
        self._count += count

    @property
    def limit(self) -> float:
        """Events a second."""
        return self._limit()

    @property
    def average(self) -> float:
        """Events a second at the last tick."""
        self._advance()
        return sum(self._buckets) / len(self._buckets) / self._tick

    @property
    def exceeded(self) -> bool:
        """Whether the average was not below the limit at the last tick."""
        self._advance()
        return self._exceeded

    def _advance(self) -> None:
        now = self._clock()
        if now - self._ticked >= IDLE:
            self._begin()
        while now - self._ticked >= self._tick:
            self._ticked += self._tick
            self._buckets.append(self._count)
            self._count = 0
            self._exceeded = sum(self._buckets) / len(self._buckets) / self._tick >= self._limit()


class Tenant:
    """The counters of the stack's one tenant, and what they led to."""

    def __init__(
        self, limits: Limits, *, tick: float = TICK, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`tick` is in seconds."""
        self.limits = limits
        self.events_per_second: float | None = None
        """In place of `limits.events_per_second`, when it is set."""
        self._tick = tick
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""

        def events() -> float:
            given = self.events_per_second
            return self.limits.events_per_second if given is None else given

        self.events = RateCounter(events, self._tick, self._clock)
        """Broadcasts: one for each that is sent and one for each client that is handed one."""
        self.changes = RateCounter(events, self._tick, self._clock)
        """Row changes: one for each subscription that is handed one."""
        self.joins = RateCounter(lambda: self.limits.joins_per_second, self._tick, self._clock)
        self.handed_out: Counter[str] = Counter()
        """Events handed to clients, by channel."""
        self.dropped: Counter[str] = Counter()
        """Events that were not handed out, by channel; a row change counts under `postgres_changes`."""
        self.sockets = 0
        """Connections accepted."""
