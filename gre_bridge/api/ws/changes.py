"""The hub's looks without a wake-up: which sessions have changed since the last one, exactly.

The database compares snapshots, so a look costs as little as there is news, however long a transaction stays open. It
must not know what is told to whom.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gre_bridge.db.users import UserDatabase
from gre_bridge.metrics import Metrics
from gre_bridge.polling import Listening, Poller, Wakeups

CROWD = 1.0
"""Seconds between two looks at who is there, while no wake-up tells of it."""


class ChangeReader:
    """When to look, and what the last look saw."""

    def __init__(
        self,
        *,
        portal: UserDatabase,
        metrics: Metrics,
        wakeups: Wakeups,
        slow: float,
        fast: float,
        on_due: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`on_due` is called when `pending` has become true; intervals are in seconds."""
        self._portal = portal
        self._on_due = on_due
        self._clock = clock
        self._snapshot: str | None = None
        self._people_at = -math.inf
        self.pending = False
        """A look is due."""
        self.poller = Poller(
            listen=portal.listen,
            idle=self._idle,
            unlisten=portal.unlisten,
            look=self._due,
            wakeups=wakeups,
            slow=slow,
            fast=fast,
            on_missed=metrics.wakeups_missed.labels("sockets").inc,
            clock=clock,
        )
        self.poller.activate(False)

    def begin(self) -> None:
        """The first socket is here."""
        self._snapshot = None
        self.poller.activate(True)

    def end(self) -> None:
        """The last socket has gone."""
        self.poller.activate(False)

    async def _idle(self, listener: str) -> Listening:
        return await self._portal.listen(listener, 0.0, idle=True)

    def _due(self) -> None:
        self.pending = True
        self._on_due()

    async def changed(self) -> frozenset[str] | None:
        """The sessions that have changed since the last look; None, all of them, for the first one. Raises BridgeError."""
        answer = await self._portal.listen(self.poller.id, None, self._snapshot)
        self.pending, self._snapshot, self.poller.hubs = False, answer.snapshot, answer.hubs
        return answer.sessions

    def people_due(self) -> bool:
        """Whether to look at who is there: nobody is woken for that either while all are awake."""
        now = self._clock()
        if not self.poller.policy.looks_often(now) or now < self._people_at + CROWD:
            return False
        self._people_at = now
        return True
