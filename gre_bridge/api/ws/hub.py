"""The hub: reads what the database has committed, for the connections of this instance.

Wake-ups are the same hints that the relay gets, and as untrusted: a wake-up with session ids reads what is newer than the
positions of these sessions, one without and each poll read all that has changed. The hub keeps only positions, and none that
matters: a client that comes back says itself what it has seen. It must not judge who may write what (the database does).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import structlog

from gre_bridge.api.pacing import ReadSize
from gre_bridge.api.ws.catch_up import CatchUpReads
from gre_bridge.api.ws.changes import ChangeReader
from gre_bridge.api.ws.fanout import FanOut
from gre_bridge.api.ws.interfaces import ExternalConnections, Realtime, Subscriber
from gre_bridge.api.ws.presence import PresenceTracker
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.api.ws.typing import TypingSignals
from gre_bridge.api.ws.viewing import Viewers
from gre_bridge.db.answers import HubChanges
from gre_bridge.db.types import NewRow
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.hub")

SLACK = timedelta(seconds=60)
"""How far each poll reads back: a transaction commits later than the times in its rows."""
MAX_FOREIGN = 100_000
"""Sessions remembered that belong to no player connected here."""
RETRY, RETRY_MAX = 0.25, 2.0
"""Seconds between two reads while the database is unavailable."""


class Hub:
    """Sends what was committed to the connections of this instance. `run` until cancelled."""

    def __init__(
        self,
        *,
        users: UserDatabase,
        metrics: Metrics,
        poll_interval: float,
        fast_poll_interval: float,
        realtime: Realtime,
        external: ExternalConnections | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Intervals are in seconds; the fast one applies while `realtime` is not healthy."""
        self._users = users
        self._metrics = metrics
        self._poll_interval = poll_interval
        self._fast_poll_interval = fast_poll_interval
        self._realtime = realtime
        self.clock = clock
        self.registry = ConnectionRegistry(metrics)
        self._fanout = FanOut(self.registry, clock)
        self._foreign: set[str] = set()
        self._named: set[str] = set()
        """Sessions to read."""
        self._all = True
        """Read everything that has changed."""
        self._wakeup = asyncio.Event()
        self._ready = asyncio.Event()
        self._polled_at = clock()
        self._settled_at = -math.inf
        """The time, by the clock, at which `since` of the fan-out is certainly reached."""
        self._size = ReadSize()
        self.catch_up_reads = CatchUpReads(users)
        self.presence = PresenceTracker(
            users=users, metrics=metrics, registry=self.registry, external=external
        )
        self._changes = ChangeReader(
            users=users, metrics=metrics, wakeups=realtime, slow=poll_interval, fast=fast_poll_interval,
            wakeup=self._wakeup, clock=clock,
        )  # fmt: skip
        self.viewers = Viewers(registry=self.registry, realtime=realtime, peers=self._changes, clock=clock)
        self.typing = TypingSignals(
            registry=self.registry, realtime=realtime, peers=self._changes, viewers=self.viewers, clock=clock
        )

    # Connections

    def add(self, subscriber: Subscriber) -> None:
        """Send to this subscriber whatever commits after `wait_ready` has returned."""
        if not self.registry:
            # Old positions would make old messages look new.
            self._fanout.reset()
            self._ready.clear()
            self.presence.reset()
            self.notify(None)
            self._changes.start()
        self._foreign.clear()
        self.registry.add(subscriber)

    @contextlib.contextmanager
    def expecting(self, subscriber: Subscriber, player_id: int | None) -> Iterator[None]:
        """Hold for this subscriber, meanwhile, whatever commits in the sessions of a player that it may turn out to be.

        It must be muted. If it is that player, `add` it within; None expects nobody.
        """
        if player_id is None:
            yield
            return
        self._foreign.clear()
        self.registry.expect(subscriber, player_id)
        try:
            yield
        finally:
            self.registry.unexpect(subscriber, player_id)
            if not self.registry:
                self._changes.stop()

    @property
    def ready(self) -> bool:
        """True if `wait_ready` would not wait: there are connections, and positions and presence are known."""
        return bool(self.registry) and self._ready.is_set() and self.presence.ready

    async def wait_ready(self) -> None:
        """Wait until the hub has positions and presence, however long the database is unavailable."""
        await self._ready.wait()
        await self.presence.wait_ready()

    def remove(self, subscriber: Subscriber) -> None:
        """Send nothing more to this subscriber."""
        self.registry.remove(subscriber)
        if not self.registry:
            self._changes.stop()

    def player_of(self, session_id: str) -> int | None:
        """Return the player of a session, None if it was not seen here lately."""
        return self._fanout.player_of(session_id)

    # Wake-ups

    def notify(self, sessions: frozenset[str] | None) -> None:
        """Read soon: there may be news in these sessions, or anywhere (None)."""
        if sessions is None:
            self._all = True
            self.presence.notify()
        else:
            self._named |= sessions - self._foreign
            if not self._named:
                return
        self._wakeup.set()

    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        """Take a wake-up from Realtime: `notify`, and count it for the polling policy."""
        self.notify(sessions)
        self._changes.poller.on_wakeup()

    def on_realtime_changed(self) -> None:
        """Adapt to a change of Realtime's health: without wake-ups a slow poll becomes a fast one."""
        if not self._realtime.healthy:
            self.notify(None)
        self._changes.poller.refresh()

    def on_event(self, event: str, payload: object) -> None:
        """Take an event that another instance broadcast."""
        if event == "viewers":
            self.viewers.receive(payload)
        else:
            self.typing.receive(event, payload, self.player_of)

    def needs(self, row: NewRow) -> bool:
        """Return True if a connection here may still need this row."""
        return (
            bool(self.registry)
            and row.session_id not in self._foreign
            and not self._fanout.sent(row.session_id, row.seq)
        )

    # Reading

    async def run(self) -> None:
        """Read and send until cancelled. Errors of the database are retried."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_reads())
            group.create_task(self.presence.run())
            group.create_task(self.viewers.run())
            group.create_task(self._changes.poller.run())

    async def _run_reads(self) -> None:
        failures = 0
        while True:
            interval = self._poll_interval if self._realtime.healthy else self._fast_poll_interval
            left = self._polled_at + interval - self.clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, left) if self.registry else None):
                    await self._wakeup.wait()
            self._wakeup.clear()
            if not self.registry:
                self._named.clear()
                continue
            # Poll in time, however many wake-ups name single sessions.
            self._all |= self.clock() >= self._polled_at + interval
            started = self.clock()
            try:
                if self._changes.pending:
                    self.notify(await self._changes.changed())
                    if self._changes.presence_due():
                        self.presence.notify()
                ages = await self._read() if self._named or self._all else []
                self._changes.poller.record_poll("sockets", ages, self.clock() - started)
                failures = 0
            except (BridgeError, KeyError, TypeError, ValueError) as error:
                failures += 1
                kind = error.kind if isinstance(error, BridgeError) else "unreadable"
                self._metrics.database_errors.labels(kind).inc()
                if failures == 1:
                    log.warning(
                        "hub_read_failed",
                        message="the hub cannot read from the database; retrying",
                        kind=kind,
                    )
                self._wakeup.set()
                await asyncio.sleep(min(RETRY * 2 ** (failures - 1), RETRY_MAX))

    async def _read(self) -> list[float]:
        """Read once, the sessions named or all that changed, and send it. Returns the ages of the messages sent, in seconds.

        On failure the same sessions stay to be read.
        """
        now, players, since = self.clock(), self.registry.players(), self._fanout.since
        resets = self._fanout.resets
        # The first read gives the time from which to read, the second the positions; subscribers that wait for these two
        # (`wait_ready`) read themselves what they saw. Sessions named meanwhile wait for the third.
        starting = not self._ready.is_set()
        named = set() if starting else set(itertools.islice(self._named, self._size.sessions))
        # A wake-up during the read calls for another read, so remove these sessions before it.
        self._named -= named
        read_all, self._all = self._all, False
        requested = set(named)
        if read_all:
            requested |= self._fanout.touched_within(3 * SLACK.total_seconds())
        try:
            news = await self._users.news(
                known=self._fanout.positions(requested),
                sessions=list(named),
                since=since if read_all else None,
                epoch=None if starting else since,
                players=players,
                limit=self._size.messages,
                size=self._size.size,
            )
            more, next_since = news["more"], _earlier(news["now"], SLACK)
            created = await self._take(news, resets=resets, starting=starting)
            # Sessions that a poll left out are found again by the next poll.
            rest = named & set(news["skipped"])
            rest |= {entry["session"]["id"] for entry in news["sessions"] if entry["more"]}
        except Exception:
            self._size.halve()
            self._named |= named
            self._all |= read_all
            raise
        self._size.grow()
        self._named |= rest
        if players is not None and players == self.registry.players() and len(self._foreign) < MAX_FOREIGN:
            self._foreign |= set(news["other_sessions"])
        # For subscribers that came after a reset `add` has called for reads of their own.
        if read_all and resets == self._fanout.resets:
            self._all |= since is None or more
            if not more:
                self._fanout.since, self._polled_at = next_since, now
                self._settled_at = now - SLACK.total_seconds()
                if since is not None:
                    self._ready.set()
            self._fanout.prune(self._settled_at)
        if self._named or self._all:
            self._wakeup.set()
        return [_seconds(news["now"]) - _seconds(time_created) for time_created in created]

    async def _take(self, news: HubChanges, *, resets: int, starting: bool) -> list[str]:
        """Send the news, or take over its positions when `starting`; neither if it was read before the last reset."""
        if resets != self._fanout.resets:
            return []
        if starting:
            self._fanout.record(news["sessions"])
            return []
        return await self._fanout.publish(news["sessions"])


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _earlier(now: str, by: timedelta) -> str:
    return (datetime.fromisoformat(now).astimezone(UTC) - by).isoformat()
