"""Polling by the hub: which sessions have changed since the last poll, exactly.

The database compares snapshots, so the cost of a poll depends on the number of changes, not on how long a transaction
stays open. This module must not know what is sent to whom.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from gre_bridge.db.users import UserDatabase
from gre_bridge.metrics import Metrics
from gre_bridge.polling import Poller, Wakeups

PRESENCE_INTERVAL = 1.0
"""Seconds between two refreshes of presence while the process polls instead of being woken."""


class ChangeReader:
    """Decides when to poll, and keeps the snapshot of the last poll."""

    def __init__(
        self,
        *,
        users: UserDatabase,
        metrics: Metrics,
        wakeups: Wakeups,
        slow: float,
        fast: float,
        wakeup: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        """`wakeup` is set when `pending` becomes true. `slow` and `fast` are the intervals of `PollPolicy`, in seconds."""
        self._users = users
        self._missed = metrics.wakeups_missed.labels("sockets")
        self._wakeup = wakeup
        self._clock = clock
        self._snapshot: str | None = None
        self._presence_at = -math.inf
        self.pending = False
        """A poll is due."""
        self.poller = Poller(registry=users, target=self, wakeups=wakeups, slow=slow, fast=fast, clock=clock)
        self.poller.set_active(False)

    @property
    def alone(self) -> bool:
        """True if no other instance serves connections, as far as the database knows."""
        return self.poller.hubs == 1

    def start(self) -> None:
        """Poll from now on: there is a connection."""
        self._snapshot = None
        self.poller.set_active(True)

    def stop(self) -> None:
        """Poll no more: there is no connection."""
        self.poller.set_active(False)

    def poll(self) -> None:
        """See PollTarget."""
        self.pending = True
        self._wakeup.set()

    def on_missed_wakeup(self) -> None:
        """See PollTarget."""
        self._missed.inc()

    async def changed(self) -> frozenset[str] | None:
        """Return the sessions changed since the last poll; None (all of them) for the first poll. Raises BridgeError."""
        answer = await self._users.listen(self.poller.id, None, self._snapshot)
        self.pending, self._snapshot, self.poller.hubs = False, answer.snapshot, answer.hubs
        return answer.sessions

    def presence_due(self) -> bool:
        """Return True if presence must be polled too: no wake-up announces it while all processes poll."""
        now = self._clock()
        if not self.poller.policy.polls_often(now) or now < self._presence_at + PRESENCE_INTERVAL:
            return False
        self._presence_at = now
        return True
