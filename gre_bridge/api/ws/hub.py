"""The hub: what the database has committed, told to the sockets that may see it, once and in seq order.

It listens to the same bells as the relay and believes them as little: on a ring it reads what is newer than
what it has told, on a bare ring and on each sweep whatever has changed. It keeps only positions, never text,
and none that matters: a socket that comes back says itself what it has seen. It must not judge who may write
what (the database does), nor wait for any socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from gre_bridge.api.pacing import ReadSize, Turns
from gre_bridge.api.ws.catch_up import CatchUpReads
from gre_bridge.api.ws.changes import ChangeReader
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.presence import READ_BY, Elsewhere, Listener, News, PresenceTracker
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.api.ws.typing import TypingSignals
from gre_bridge.db.answers import SessionNews
from gre_bridge.db.types import Json, NewRow
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics
from gre_bridge.polling import Wakeups

log = structlog.get_logger("gre.hub")

SLACK = timedelta(seconds=60)
"""How far back each sweep looks: a transaction commits later than its rows' own times."""
FORGET = 600.0
"""Seconds after which the position of a quiet session is forgotten (much longer than SLACK)."""
FOREIGN = 100_000
"""Sessions remembered as nobody's who is here."""
RETRY = 0.25
RETRY_MAX = 2.0
TIDY = 60.0
"""Seconds between looks for positions that sockets need no longer."""


@dataclass(slots=True)
class _Known:
    """How far a session has been told."""

    player_id: int
    seq: int = 0
    rev: int = 0
    state: tuple[str, str | None] | None = None
    reads: dict[str, int] = field(default_factory=dict)
    touched: float = 0.0


class Hub:
    """Fans out to the sockets of this instance. `run` reads until cancelled."""

    def __init__(
        self,
        *,
        portal: UserDatabase,
        metrics: Metrics,
        sweep_interval: float,
        fast_sweep_interval: float,
        feed_healthy: Callable[[], bool],
        broadcast: Callable[[str, Json], Awaitable[None]],
        elsewhere: Elsewhere | None = None,
        wakeups: Wakeups | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`broadcast` sends an event to the other instances and may lose it. Intervals are in seconds.

        With `wakeups` (the feed) it also looks by itself, as often as there is news, and needs no wake-up meanwhile.
        """
        self._portal = portal
        self._metrics = metrics
        self._sweep = sweep_interval
        self._fast_sweep = fast_sweep_interval
        self._feed_healthy = feed_healthy
        self.clock = clock
        self.audience = ConnectionRegistry(metrics)
        self.signals = TypingSignals(
            audience=self.audience, broadcast=broadcast, alone=self._alone, clock=clock,
        )  # fmt: skip
        self._known: dict[str, _Known] = {}
        self._foreign: set[str] = set()
        self._named: set[str] = set()
        self._everything = True
        self._rung = asyncio.Event()
        self._looked = asyncio.Event()
        self._swept = clock()
        # The last sweep's time less SLACK. What was created before it has been told, or belongs to a session that
        # is known: so it is also the time from which an unknown session is read.
        self._since: str | None = None
        self._settled = -math.inf
        """The time, by the clock here, from which `_since` is for certain the same or later."""
        self._tidied = clock()
        self._size = ReadSize()
        self.reads = CatchUpReads(portal)
        self.people = PresenceTracker(
            portal=portal, metrics=metrics, here=self.audience.everyone, elsewhere=elsewhere
        )
        self.looks: ChangeReader | None = None
        """Its looks without a wake-up."""
        if wakeups is not None:
            self.looks = ChangeReader(
                portal=portal, metrics=metrics, wakeups=wakeups, slow=sweep_interval, fast=fast_sweep_interval,
                on_due=self._rung.set, clock=clock,
            )  # fmt: skip

    # Who listens

    def add(self, listener: Listener) -> None:
        """Tell this socket whatever commits after `looking` has returned."""
        if not self.audience:
            # Positions from before would be old: what they would tell again, nobody here could tell from news.
            self._known.clear()
            self._since = None
            self._looked.clear()
            self.people.forget()
            self.ring(None)
            if self.looks is not None:
                self.looks.begin()
        self._foreign.clear()
        self.audience.add(listener)

    async def looking(self) -> None:
        """Wait until the hub knows from where on it reads, and who is there; as long as the database is away."""
        await self._looked.wait()
        await self.people.met()

    def remove(self, listener: Listener) -> None:
        """Tell it nothing more."""
        self.audience.remove(listener)
        if self.looks is not None and not self.audience:
            self.looks.end()

    def player_of(self, session_id: str) -> int | None:
        """Whose session this is, if that was seen here."""
        known = self._known.get(session_id)
        return known.player_id if known else None

    # Bells

    def has_told(self, row: NewRow) -> bool:
        """Whether nobody here waits for this row: it has been told, or no socket is here to be told."""
        known = self._known.get(row.session_id)
        return (
            not self.audience
            or row.session_id in self._foreign
            or (known is not None and known.seq >= row.seq)
        )

    def _alone(self) -> bool:
        """Whether no other instance serves sockets, as far as is known."""
        return self.looks is not None and self.looks.poller.hubs == 1

    def ring(self, sessions: frozenset[str] | None) -> None:
        """There may be news: of these sessions, or anywhere (None)."""
        if sessions is None:
            self._everything = True
            self.people.ring()
        else:
            self._named |= sessions - self._foreign
            if not self._named:
                return
        self._rung.set()

    def heard(self, event: str, body: object) -> None:
        """An event that another instance broadcast."""
        self.signals.heard(event, body, self.player_of)

    # Reading

    async def run(self) -> None:
        """Read and tell until cancelled; failures of the database are waited out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_on())
            group.create_task(self.people.run())
            if self.looks is not None:
                group.create_task(self.looks.poller.run())

    async def _read_on(self) -> None:
        failures = 0
        while True:
            interval = self._sweep if self._feed_healthy() else self._fast_sweep
            left = self._swept + interval - self.clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, left) if self.audience else None):
                    await self._rung.wait()
            self._rung.clear()
            if not self.audience:
                self._named.clear()
                continue
            # However often it rings for some, the others are swept.
            self._everything |= self.clock() >= self._swept + interval
            began = self.clock()
            try:
                if self.looks is not None and self.looks.pending:
                    self.ring(await self.looks.changed())
                    if self.looks.people_due():
                        self.people.ring()
                ages = await self._read() if self._named or self._everything else []
                if self.looks is not None:
                    self.looks.poller.looked("sockets", ages, self.clock() - began)
                failures = 0
            except (BridgeError, KeyError, TypeError, ValueError) as error:
                failures += 1
                self._metrics.database_errors.labels(_kind(error)).inc()
                if failures == 1:
                    log.warning("the sockets wait for the database", problem=_kind(error))
                self._rung.set()
                await asyncio.sleep(min(RETRY * 2 ** (failures - 1), RETRY_MAX))

    async def _read(self) -> list[float]:
        """Read once, of the sessions named or of all that changed, and tell it; the ages of the messages told.

        What fails stays to be read.
        """
        now, whom, since = self.clock(), self.audience.players(), self._since
        # The first look says from where on to look, the second takes positions: who waits for these two
        # (`looking`) reads for himself what they saw. What is named waits for the third.
        beginning = not self._looked.is_set()
        named = set() if beginning else set(itertools.islice(self._named, self._size.sessions))
        # What rings while this is under way has to be read again, so it is taken off now.
        self._named -= named
        everything, self._everything = self._everything, False
        asked = set(named)
        if everything:
            asked |= {
                s for s, known in self._known.items() if now - known.touched < 3 * SLACK.total_seconds()
            }
        try:
            news = await self._portal.news(
                known={s: (k.seq, k.rev) for s in asked if (k := self._known.get(s))},
                sessions=list(named),
                since=since if everything else None,
                epoch=None if beginning else since,
                players=whom,
                limit=self._size.messages,
                size=self._size.size,
            )
            more, begun = news["more"], _earlier(news["now"], SLACK)
            if beginning:
                for entry in news["sessions"]:
                    self._note(entry)
            written = [] if beginning else await self._tell_each(news["sessions"])
            # (Of everything, what was left out is found again by the next look.)
            rest = named & set(news["skipped"])
            rest |= {entry["session"]["id"] for entry in news["sessions"] if entry["more"]}
        except Exception:
            self._size.halve()
            self._named |= named
            self._everything |= everything
            raise
        self._size.grow()
        self._named |= rest
        if whom is not None and whom == self.audience.players() and len(self._foreign) < FOREIGN:
            self._foreign |= set(news["other_sessions"])
        if everything:
            self._everything |= since is None or more
            if not more:
                self._since, self._swept = begun, now
                self._settled = now - SLACK.total_seconds()
                if since is not None:
                    self._looked.set()
            self._forget()
        if self._named or self._everything:
            self._rung.set()
        return [_seconds(news["now"]) - _seconds(then) for then in written]

    async def _tell_each(self, entries: list[SessionNews]) -> list[str]:
        """Tell what a read brought; when the messages were written."""
        written, turns = list[str](), Turns()
        for entry in entries:
            try:
                written += await self._tell(entry, turns)
            except (KeyError, TypeError, ValueError) as error:
                self._skip(entry, error)
        return written

    def _skip(self, entry: SessionNews, error: Exception) -> None:
        """Pass over a session's news that cannot be told, so that the others are."""
        session = entry["session"]
        known = self._known.setdefault(session["id"], _Known(session["player_id"]))
        known.seq, known.rev, entry["more"] = session["last_seq"], session["rev"], False
        log.error("a session's news cannot be told", session=session["id"], error=type(error).__name__)

    def _note(self, entry: SessionNews) -> None:
        """Take one session's position, telling nobody."""
        session = entry["session"]
        known = self._known[session["id"]] = _Known(session["player_id"], session["last_seq"], session["rev"])
        known.state = (session["status"], session["assigned_staff_id"])
        known.reads = {side: seq for side, (seq, _) in entry["reads"].items()}
        known.touched = self.clock()

    async def _tell(self, entry: SessionNews, turns: Turns) -> list[str]:
        """Tell one session's news: what it is, its messages, what was read; its end comes last. When they were written."""
        session, messages = entry["session"], entry["messages"]
        key, player = session["id"], session["player_id"]
        first = key not in self._known
        known = self._known.setdefault(key, _Known(player))
        known.touched = self.clock()
        state = (session["status"], session["assigned_staff_id"])
        updated = frame("session_updated", session=session) if state != known.state else None
        if first:
            at = messages[0]["seq"] - 1 if messages else session["last_seq"]
            self._tell_all(player, key, at, News.OPENED, updated)
        written: list[str] = []
        for message in messages:
            if message["seq"] > known.seq:
                known.seq = message["seq"]
                written.append(message["created_at"])
                text = frame("chat_message", message=message, replay=False)
                for listener in self.audience.hearing(player):
                    listener.message(message, text)
                # Who has come meanwhile has read this already, or will.
                await turns.take(len(text), lambda: self.audience.hearing(player))
        if entry["more"]:
            return written  # rev stays behind, so that the rest is read
        known.seq, known.rev, known.state = session["last_seq"], session["rev"], state
        for side, (up_to, read_at) in entry["reads"].items():
            if up_to > known.reads.get(side, 0) and (
                not first or (read_at or "") > (self._since or read_at or "")
            ):
                text = frame("messages_read", sessionId=key, by=side, upToSeq=up_to, timestamp=read_at)
                self._tell_all(player, key, known.seq, READ_BY[side], text)
            known.reads[side] = up_to
        if not first:
            self._tell_all(player, key, known.seq, News.UPDATED, updated)
        return written

    def _tell_all(self, player: int, session: str, seq: int, what: News, text: str | None) -> None:
        if text is not None:
            for listener in self.audience.hearing(player):
                listener.news(session, seq, what, text)

    def _forget(self) -> None:
        limit = self.clock() - FORGET
        for key in [key for key, known in self._known.items() if known.touched < limit]:
            del self._known[key]
        if self.clock() - self._tidied > TIDY:
            self._tidied = self.clock()
            passed = {key: known.seq for key, known in self._known.items()}
            for listener in self.audience.everyone():
                listener.forget(passed, since=self._settled)


def _kind(error: Exception) -> str:
    return error.kind if isinstance(error, BridgeError) else "unreadable"


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _earlier(now: str, by: timedelta) -> str:
    return (datetime.fromisoformat(now).astimezone(UTC) - by).isoformat()
